"""A deadline for the transfer of the policy's weights to the rollout servers, for which veRL waits without one."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from speciarl.errors import WeightTransferStuck


def bound(manager: Any, deadline_s: float) -> None:
    """Give a veRL ``CheckpointEngineManager``'s ``update_weights`` a deadline; raises WeightTransferStuck past it.

    A rollout server that hangs leaves the trainer worker that sends in a blocking call, which nothing can interrupt:
    after the error the worker cannot save a checkpoint either, and the run has to end.
    """
    transfer = manager.update_weights

    def bounded(*arguments: Any, **named: Any) -> Any:
        return _in_time(lambda: transfer(*arguments, **named), deadline_s)

    manager.update_weights = bounded


def _in_time(work: Callable[[], Any], deadline_s: float) -> Any:
    done: Future[Any] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - result() raises it in the thread that waits
            done.set_exception(error)

    # A daemon: an executor's thread would be joined at exit, and this one may never end.
    threading.Thread(target=run, name="weight-transfer", daemon=True).start()
    try:
        return done.result(timeout=deadline_s)
    except TimeoutError as error:
        if done.done():  # the transfer's own
            raise
        raise WeightTransferStuck(
            f"the rollout servers did not take the new weights within {deadline_s:g} s "
            "(speciarl.training.weights_deadline_s): one of them hangs, or the network between does. Start the same "
            "command again when that is mended; it resumes from the last checkpoint (trainer.save_freq)"
        ) from error
