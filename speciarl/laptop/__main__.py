"""Entry point of ``python -m speciarl.laptop``."""

import sys

from speciarl.laptop.cli import main

if __name__ == "__main__":
    sys.exit(main())
