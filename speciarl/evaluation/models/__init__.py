"""Models of an evaluation: found, hashed, converted from veRL's checkpoints, checked and merged before they answer."""

from speciarl.evaluation.models.canary import logits_differ, prove
from speciarl.evaluation.models.resolution import IdentifiedModel, ResolvedModel, identify, resolve

__all__ = ["IdentifiedModel", "ResolvedModel", "identify", "logits_differ", "prove", "resolve"]
