"""The place that recipes named before 0.2; `speciarl.training.agent_loop.manager` is the present one."""

from speciarl.training.agent_loop.manager import GroupAgentLoopManager

__all__ = ["GroupAgentLoopManager"]
