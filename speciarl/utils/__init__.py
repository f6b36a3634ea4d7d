"""Utilities that depend on no other part: files, addresses, credentials, deadlines, errors of commands."""
