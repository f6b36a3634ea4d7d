"""SpeciaRL: specificity-aware reinforcement learning for open-world classification, on stock veRL."""

__version__ = "0.1.0"
