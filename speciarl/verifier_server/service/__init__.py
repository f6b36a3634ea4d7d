"""The verifier as an HTTP service: ``speciarl verifier serve``."""
