"""Observability of a run: metrics, dumps of rollouts, pages of samples."""
