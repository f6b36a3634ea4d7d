"""How set-up ends when it cannot go on."""


class BootstrapError(Exception):
    """Ends the program with one line that names the cause and the remedy."""
