"""Calls to agent-loop workers with a deadline; a worker that died raises WorkerLost."""

from collections.abc import Sequence
from typing import Any

import ray

from speciarl.errors import WorkerLost

REPLY_DEADLINE_S = 300.0
"""Workers answer from memory, between two pieces of other work; one that takes longer hangs."""


def ask(workers: Sequence[Any], method: str, *arguments: Any) -> list[Any]:
    """What a method of each worker returns; raises WorkerLost when one is dead or does not reply in time."""
    asked = [getattr(worker, method).remote(*arguments) for worker in workers]
    try:
        replies: list[Any] = ray.get(asked, timeout=REPLY_DEADLINE_S)
    except ray.exceptions.GetTimeoutError as error:
        raise WorkerLost(f"an agent-loop worker did not reply within {REPLY_DEADLINE_S:g} s") from error
    except ray.exceptions.RayActorError as error:
        raise lost(error) from error
    return replies


def lost(error: ray.exceptions.RayActorError) -> WorkerLost:
    """Ray's error in one line that says what it means."""
    return WorkerLost(f"an agent-loop worker died, and its rollouts with it ({' '.join(str(error).split())})")
