"""Trainers: veRL's, with the run's verifier and a failure budget.

One class for each of veRL's modes, named in ``trainer.v1.trainer_mode`` by the options of ``recipe/mode``; all three
get what is ours from `VerdictTrainer`. The optimisation is veRL's, untouched. Modes: docs/trainer_modes.md.
"""

import logging
from pathlib import Path
from typing import Any, ClassVar

import transfer_queue as tq
from omegaconf import open_dict
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.debug import marked_timer
from verl.utils.tensordict_utils import assign_non_tensor_stack

from speciarl.errors import FailureBudgetExceeded, SpeciaRLError, VerifierOutage, WorkerLost
from speciarl.training.agent_loop import calls
from speciarl.training.agent_loop.seeding import PromptUids
from speciarl.training.observability import metrics_file
from speciarl.training.trainer import late_rewards, padding
from speciarl.training.trainer.checkpoint import StepProgress, repair_tracker, tracked_step
from speciarl.training.trainer.failure_budget import (
    refuse_endless,
    refuse_unfinished,
    refuse_unrewarded,
    refuse_unscorable,
)
from speciarl.training.trainer.poll_hook import PollHook
from speciarl.training.trainer.reporting import ReportingTrainer
from speciarl.training.trainer.weight_deadline import set_deadline

RESTART_HINT = "start the same command again when that is mended; it resumes"

logger = logging.getLogger(__name__)


class VerdictTrainer(ReportingTrainer):
    """Mix-in for one of veRL's trainers: verifier, failure budget, late rewards and checkpoints of whole steps.

    Comes before veRL's trainer in the bases of a registered class, so that its methods wrap veRL's.
    """

    stock_mode: ClassVar[str]
    """veRL's own name of the mode."""

    def __init__(self, config: Any) -> None:
        with open_dict(config):
            # veRL found this class by our name; from here on it compares the name with those of its own modes.
            config.trainer.v1.trainer_mode = self.stock_mode
        super().__init__(config)
        self.replay_buffer.poll_interval = self._settings.training.poll_interval_s
        self._data_at_step: dict[str, Any] = {}
        """The dataloader's state at the beginning of the current step."""
        self._progress = StepProgress()
        seed = self._settings.training.seed
        self._uids = None if seed is None else PromptUids(seed)
        self._training = False
        self._stop_error: SpeciaRLError | None = None
        """Why the run stops once its current step is logged; None as long as it goes on."""

    def init(self) -> None:
        """Start the judges while veRL builds its workers, then the verifier service; put its URL into the config."""
        try:
            self._verifier.launch()
            super().init()
            client = self._verifier.start()
        except BaseException:
            self._verifier.stop()
            raise
        # veRL makes the agent-loop workers after `init`, from this same config object.
        with open_dict(self.config):
            self.config.speciarl.verifier = client.model_dump(mode="json", exclude_unset=True)
        if self._verifier.url:
            logger.warning(
                "the run's verifier is %s; watch it with: speciarl verifier top %s --key-file %s",
                self._verifier.url, self._verifier.url, client.api_key_file,
            )  # fmt: skip

    def on_init_end(self) -> None:
        """Send the first weights. Set here, since the managers exist only now, the deadline holds for all transfers."""
        for name in ("checkpoint_manager", "standalone_checkpoint_manager"):  # the second in separate_async only
            if hasattr(self, name):
                set_deadline(getattr(self, name), self._settings.training.weights_deadline_s)
        super().on_init_end()

    def fit(self, agent_loop_manager: Any) -> None:
        """Train until the end or an error; the verifier stops with the run.

        Raises VerifierOutage, FailureBudgetExceeded and WorkerLost, once the last finished step is saved if it can be.
        """
        try:
            metrics_file.rotate(self.config.trainer)  # before veRL's logger opens the file, which truncates it
            super().fit(agent_loop_manager)
            self._raise_stop_error()  # of the last step, after which no other one begins
        except (VerifierOutage, FailureBudgetExceeded, WorkerLost) as error:
            raise self._give_up(error) from error
        finally:
            self._verifier.stop()

    def on_train_begin(self) -> None:
        """Mark the end of the first validation: from here on an outage stops the run only once its step is logged."""
        self._training = True
        super().on_train_begin()

    def on_step_begin(self) -> None:
        """Record where the dataloader stands, for a checkpoint in case this step has to be given up."""
        self._raise_stop_error()
        super().on_step_begin()
        self._data_at_step = self.train_dataloader.state_dict()  # before veRL fetches the step's prompts
        self._progress.begin()

    def on_step_end(self) -> None:
        """Collect the workers' counters; past `max_unscorable_rate` the run stops, once the step is logged."""
        super().on_step_end()  # sends the weights: only then is the step finished
        self._progress.end()
        self._step_stats = self._drain_stats()
        # The workers' clocks cannot know that the trainer computed while verdicts were out.
        if self._settings.training.late_verdicts:
            self._step_stats.waited_s = self.timing_raw["verdicts"]
        try:
            refuse_unscorable(self._step_stats, self._settings.reward)
        except FailureBudgetExceeded as error:  # raised at once, it would lose the step's metrics
            self._stop_error = error

    def _raise_stop_error(self) -> None:
        """Raise the error that was put off until its step was logged."""
        if self._stop_error is not None:
            self.global_steps -= 1  # veRL counts the next step already
            raise self._stop_error

    def _check_progress(self) -> None:
        """Raise an error of the failure budget when the rollouts that are waited for cannot be expected any more."""
        stats, images = self._stats_so_far(), int(self.config.data.train_batch_size)
        batch = images * int(self.config.actor_rollout_ref.rollout.n)
        refuse_unfinished(stats, self._settings.reward, batch, self._judge_urls())
        if self.config.algorithm.filter_groups.enable:
            refuse_endless(stats, images, self._settings.training.max_gen_batches)

    def _judge_urls(self) -> list[str]:
        return self._verifier.judge_urls

    def _give_up(self, error: SpeciaRLError) -> SpeciaRLError:
        """Save the last finished step, unless that is done; returns the error with what can be resumed from."""
        now, last = self.global_steps, self._progress.finished(self.global_steps)
        where = f"after step {now}" if last == now else f"step {now} was given up"
        if last < 1:
            return type(error)(f"{where}, and no step is finished: {error}; {RESTART_HINT}")
        if tracked_step(Path(self.config.trainer.default_local_dir)) != last:
            if not self._progress.whole:
                where += " when its updates had begun"
                kept = "so the last checkpoint (trainer.save_freq) stands"
                return type(error)(f"{where}, {kept}: {error}; {RESTART_HINT}")
            # A resumed run must fetch the given-up step's prompts again; other modes save them, in TransferQueue.
            if last != now and self.trainer_mode == "sync":
                self.train_dataloader.load_state_dict(self._data_at_step)
                self.train_dataloader_it = None
            self.global_steps = last  # names the checkpoint's folder, and is written into the tracker
            self._save_checkpoint()
        return type(error)(f"{where}, step {last} is saved: {error}; {RESTART_HINT}")

    def _load_checkpoint(self) -> None:
        if self.config.trainer.resume_mode == "auto":
            repaired = repair_tracker(Path(self.config.trainer.default_local_dir))
            if repaired:
                logger.warning(repaired)
        super()._load_checkpoint()
        # Asynchronous modes restore the prompts in flight, under the uids that they had.
        if self._uids is not None and self.trainer_mode != "sync":
            self._uids.exclude((tq.kv_list("train") or {}).get("train", {}))

    def _fetch_one_gen_batch(self) -> Any:
        batch = super()._fetch_one_gen_batch()
        # In place of veRL's random uids, before anything is stored or seeded under them.
        if self._uids is not None:
            assign_non_tensor_stack(batch, "uid", self._uids.draw(self.global_steps, len(batch)))
        return batch

    def _balance_batch(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        if self._uids is not None:  # rollouts arrive in any order, and sums of floats depend on it
            batch.reorder(sorted(range(len(batch.keys)), key=batch.keys.__getitem__))
        batch = super()._balance_batch(batch, *args, **kwargs)
        # After veRL's method, which adds the padding and fills `_dispatch_info` (data-parallel ranks by role).
        padding.spread(batch, ranks=max(self.actor_rollout_wg._dispatch_info["actor"]) + 1)
        return batch

    def _compute_advantage(self, batch: Any, metrics: Any) -> Any:
        if self._settings.training.late_verdicts:  # advantages are the first to need rewards
            with marked_timer("verdicts", self.timing_raw):
                scores = late_rewards.collect(
                    self.agent_loop_manager.agent_loop_workers,
                    self._check_progress,
                    self._settings.reward.group_deadline_s + calls.REPLY_DEADLINE_S,
                )
            refuse_unrewarded(late_rewards.write(batch, scores), self._stats_so_far)
        return super()._compute_advantage(batch, metrics=metrics)

    def _update_actor(self, batch: Any, metrics: Any) -> Any:
        self._progress.record_update()  # before: an update that fails half-way has changed weights too
        return super()._update_actor(batch, metrics=metrics)

    def _build_replay_buffer(self) -> Any:
        return PollHook(self._check_progress).install(super()._build_replay_buffer())

    def _validate(self) -> dict[str, float]:
        try:
            metrics: dict[str, float] = super()._validate()
        except Exception as error:  # without a single verdict veRL has nothing to average
            stats = self._drain_stats(validate=True)
            if not stats.rollouts or stats.scored:
                raise
            outage = VerifierOutage("not one rollout of the validation has a verdict")
            if not self._training:  # before the first step there are no metrics to log first
                raise outage from error
            self._stop_error = outage
            return {}
        stats = self._drain_stats(validate=True)
        metrics["val-core/unscorable_rate"] = stats.unscorable_rate
        metrics["val-core/verifier_wait_s"] = stats.waited_s
        return metrics


@register_trainer("speciarl")
class SpeciaRLTrainer(VerdictTrainer, PPOTrainerSync):
    """Synchronous trainer: generates, judges and updates in turns, on the same devices, as the paper does."""

    stock_mode = "sync"


@register_trainer("speciarl_colocate_async")
class SpeciaRLColocateAsyncTrainer(VerdictTrainer, PPOTrainerColocateAsync):
    """Asynchronous trainer on the same devices: generates ahead, while the verdicts of a batch are still out."""

    stock_mode = "colocate_async"


@register_trainer("speciarl_separate_async")
class SpeciaRLSeparateAsyncTrainer(VerdictTrainer, PPOTrainerSeparateAsync):
    """Asynchronous trainer with rollout servers on devices of their own, which get new weights after each batch."""

    stock_mode = "separate_async"
