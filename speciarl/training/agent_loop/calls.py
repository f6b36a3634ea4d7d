"""Calls to agent-loop workers (Ray actors), with a deadline; a worker that died or hangs raises WorkerLost."""

from collections.abc import Sequence
from typing import Any

import ray

from speciarl.errors import WorkerLost

REPLY_DEADLINE_S = 300.0
"""Deadline of a reply. Workers reply from memory, between two pieces of other work; one that takes longer hangs."""


def ask(workers: Sequence[Any], method: str, *arguments: Any) -> list[Any]:
    """Replies of all workers to one method call, in their order; raises WorkerLost when one is dead or late."""
    asked = [getattr(worker, method).remote(*arguments) for worker in workers]
    try:
        replies: list[Any] = ray.get(asked, timeout=REPLY_DEADLINE_S)
    except ray.exceptions.GetTimeoutError as error:
        raise WorkerLost(f"an agent-loop worker did not reply within {REPLY_DEADLINE_S:g} s") from error
    except ray.exceptions.RayActorError as error:
        raise worker_lost(error) from error
    return replies


def worker_lost(error: ray.exceptions.RayActorError) -> WorkerLost:
    """The error for a user, in one line, of Ray's error about a dead actor."""
    return WorkerLost(f"an agent-loop worker died, and its rollouts with it ({' '.join(str(error).split())})")
