"""Entry point of ``python -m speciarl.laptop``."""

from speciarl.laptop.cli import main

if __name__ == "__main__":
    main()
