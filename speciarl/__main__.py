"""``python -m speciarl``: the same as the command ``speciarl``."""

from speciarl.cli import main

if __name__ == "__main__":
    main()
