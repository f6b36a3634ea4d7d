"""Trainer: veRL's, with a failure budget, safe checkpoints, late rewards and the run's own verifier."""
