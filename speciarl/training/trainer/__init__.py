"""veRL's trainer with our stops: failure budget, checkpoints, late rewards, judges of the run's own."""
