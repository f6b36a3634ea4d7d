"""Checks of a finished file: validation, inspection, tables for the terminal."""
