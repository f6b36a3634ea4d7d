"""SpeciaRL inside veRL: agent-loop worker, trainer and metrics. Only this package imports veRL."""
