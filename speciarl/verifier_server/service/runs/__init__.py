"""Runs of a service: what was judged for each, counted and kept in the verdict log."""
