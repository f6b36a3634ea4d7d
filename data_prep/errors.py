"""The error that the command line turns into one line and exit code 2."""


class DataPrepError(ValueError):
    """Bad input or a missing source; the message names the cause and the remedy."""
