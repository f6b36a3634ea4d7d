"""SpeciaRL inside veRL: agent-loop worker, trainer, preflight checks and metrics."""
