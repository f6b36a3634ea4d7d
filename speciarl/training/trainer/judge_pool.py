"""Judge pool of a run: vLLM replicas that start together with its rollout servers and stop when it ends."""

from concurrent.futures import Future, ThreadPoolExecutor

from speciarl.config import SpeciaRLConfig
from speciarl.cpu import environment
from speciarl.verifier_server.pool.ray_pool import JudgePool


class ManagedJudges:
    """Lifetime of a run's judge pool; does nothing when the judge runs elsewhere.

    The replicas load in a thread while the trainer builds its workers. Where they share its GPUs they load before that:
    a vLLM server dies when others free GPU memory while it measures how much is left, so no two may start on one GPU at
    the same time, and rollout servers start with the trainer's workers.
    """

    def __init__(self, settings: SpeciaRLConfig, device: str) -> None:
        env = environment.variables() if device == "cpu" else {}
        pool = settings.verifier.pool
        self._pool = JudgePool(settings.verifier, settings.training.judge_log_dir, env) if pool is not None else None
        # Ray hides no GPU from an actor that asks for none, and veRL reserves whole ones, so a fraction never meets it.
        self._shares_gpus = device != "cpu" and pool is not None and pool.gpus_per_replica == 0
        self._starting: Future[list[str]] | None = None

    def launch(self) -> None:
        """Begin to start the replicas; returns at once, or once they are healthy if they share the trainer's GPUs."""
        if self._pool is not None:
            executor = ThreadPoolExecutor(1, thread_name_prefix="judges")
            self._starting = executor.submit(self._pool.start)
            executor.shutdown(wait=False)  # takes no more work; the start goes on
        if self._shares_gpus:
            self.wait()

    def wait(self) -> list[str]:
        """URLs of the replicas, awaited until all are healthy; none without a pool. Raises VerifierStartError."""
        return self._starting.result() if self._starting is not None else []

    def stop(self) -> None:
        """Stop the replicas, in bounded time; safe at any time."""
        if self._pool is not None:
            self._pool.stop()
