"""Weight deadline: ends a transfer of weights to the rollout servers that hangs or fails, with its cause."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ray.exceptions import RayTaskError

from speciarl.errors import WeightTransferFailed, WeightTransferStuck

_AGAIN = "Start the same command again when that is mended; it resumes from the last checkpoint (trainer.save_freq)"


def set_deadline(manager: Any, deadline_s: float) -> None:
    """Set a deadline for ``update_weights`` of a veRL ``CheckpointEngineManager``, by wrapping its method.

    Raises WeightTransferStuck past it, and WeightTransferFailed as soon as a worker or a server fails.
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
    except RayTaskError as error:
        raise WeightTransferFailed(
            f"the new weights did not reach the rollout servers: {_root_cause(error)}. {_AGAIN}"
        ) from error
    except TimeoutError as error:
        if done.done():  # the transfer's own
            raise
        raise WeightTransferStuck(
            f"the rollout servers did not take the new weights within {deadline_s:g} s "
            f"(speciarl.training.weights_deadline_s): one of them hangs, or the network between does. {_AGAIN}"
        ) from error


def _root_cause(error: BaseException) -> str:
    """The error of the process in which it arose, on one line: Ray wraps it once for each process on its way."""
    while isinstance(error, RayTaskError):
        error = error.cause
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
