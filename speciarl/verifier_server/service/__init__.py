"""Verifier service: judges pairs over HTTP; started by ``speciarl verifier serve``."""
