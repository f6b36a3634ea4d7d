"""Alias of `speciarl.training.agent_loop.manager`, under the name that recipes used before 0.2."""

from speciarl.training.agent_loop.manager import GroupAgentLoopManager

__all__ = ["GroupAgentLoopManager"]
