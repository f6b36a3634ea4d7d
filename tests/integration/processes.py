"""A look at processes that may end at any moment."""

import psutil


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; empty once it has ended, be it a zombie or gone."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
