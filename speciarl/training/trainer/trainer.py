"""Trainers: veRL's, with our judges, metrics and failure budget.

One class for each of veRL's modes, named in ``trainer.v1.trainer_mode`` by the options of ``recipe/mode``; what is ours
is in `VerdictTrainer`, once. The optimisation is veRL's, untouched. Modes: docs/trainer_modes.md.
"""

import logging
from pathlib import Path
from typing import Any, ClassVar

import transfer_queue as tq
from omegaconf import open_dict
from verl.trainer.ppo.v1.trainer_base import PPOTrainer, register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.debug import marked_timer
from verl.utils.tensordict_utils import assign_non_tensor_stack

from speciarl.config import load
from speciarl.errors import FailureBudgetExceeded, SpeciaRLError, VerifierOutage, WorkerLost
from speciarl.training.agent_loop import calls
from speciarl.training.agent_loop.seeding import PromptUids
from speciarl.training.observability import metrics_file, rollout_dump, sample_page
from speciarl.training.observability.metrics import training_metrics, validation_metrics
from speciarl.training.observability.rollout_samples import SampledGroup
from speciarl.training.observability.rollout_stats import RolloutStats, merge
from speciarl.training.trainer import late_rewards, padding
from speciarl.training.trainer.checkpoint import StepProgress, repair_tracker, tracked
from speciarl.training.trainer.failure_budget import (
    refuse_endless,
    refuse_unfinished,
    refuse_unrewarded,
    refuse_unscorable,
)
from speciarl.training.trainer.poll_hook import Watch
from speciarl.training.trainer.run_verifier import RunVerifier
from speciarl.training.trainer.weight_deadline import bound

AGAIN = "start the same command again when that is mended; it resumes"

logger = logging.getLogger(__name__)


class VerdictTrainer(PPOTrainer):
    """What knows about verdicts. Stands before one of veRL's trainers in the bases of a registered class."""

    stock_mode: ClassVar[str]
    """veRL's own name of the mode."""

    global_steps: int

    def __init__(self, config: Any) -> None:
        with open_dict(config):
            config.trainer.v1.trainer_mode = self.stock_mode  # veRL compares this name in several places
        super().__init__(config)
        self._settings = load(config)
        self.replay_buffer.poll_interval = self._settings.training.poll_interval_s
        self._verifier = RunVerifier(self._settings, str(config.trainer.device))
        self._step_stats = RolloutStats()
        self._shown: list[SampledGroup] = []
        self._data_at_step: dict[str, Any] = {}
        self._progress = StepProgress()
        seed = self._settings.training.seed
        self._uids = None if seed is None else PromptUids(seed)
        self._verifier_totals: list[dict[str, float]] = []
        self._training = False
        self._refusal: SpeciaRLError | None = None

    def init(self) -> None:
        """Start the judges while veRL builds its workers, then the verifier service; tell the agent loops of it."""
        try:
            self._verifier.launch()
            super().init()
            client = self._verifier.start()
        except BaseException:
            self._verifier.stop()
            raise
        with open_dict(self.config):
            self.config.speciarl.verifier = client.model_dump(mode="json", exclude_unset=True)
        if self._verifier.url:
            logger.warning(
                "the run's verifier is %s; watch it with: speciarl verifier top %s --key-file %s",
                self._verifier.url, self._verifier.url, client.api_key_file,
            )  # fmt: skip

    def on_init_end(self) -> None:
        """Send the first weights; this transfer and all later ones have a deadline."""
        for name in ("checkpoint_manager", "standalone_checkpoint_manager"):  # the second in separate_async only
            if hasattr(self, name):
                bound(getattr(self, name), self._settings.training.weights_deadline_s)
        super().on_init_end()

    def fit(self, agent_loop_manager: Any) -> None:
        """Train; the judges stop with the run. One that cannot go on saves what it has before it says why."""
        try:
            metrics_file.set_aside(self.config.trainer)
            super().fit(agent_loop_manager)
            self._stop_if_refused()
        except (VerifierOutage, FailureBudgetExceeded, WorkerLost) as error:
            raise self._give_up(error) from error
        finally:
            self._verifier.stop()

    def on_train_begin(self) -> None:
        """From now on a step's metrics are to be logged before anything ends the run."""
        self._training = True
        super().on_train_begin()

    def on_step_begin(self) -> None:
        """Remember where the data are, to come back to if this step has to be given up."""
        self._stop_if_refused()
        super().on_step_begin()
        self._data_at_step = self.train_dataloader.state_dict()
        self._progress.begin()

    def on_step_end(self) -> None:
        """Collect the workers' counters; when too much went unscored the run stops, once the step is logged."""
        super().on_step_end()
        self._progress.end()
        self._step_stats = self._drain()
        if self._settings.training.late_verdicts:  # the workers do not know what went on while they waited
            self._step_stats.waited_s = self.timing_raw["verdicts"]
        try:
            refuse_unscorable(self._step_stats, self._settings.reward)
        except FailureBudgetExceeded as error:
            self._refusal = error

    def _stop_if_refused(self) -> None:
        """Raise what was found after the last step; veRL has logged that step, and counts the next one already."""
        if self._refusal is not None:
            self.global_steps -= 1
            raise self._refusal

    def _look_around(self) -> None:
        """Called while rollouts are waited for: stop the run when they cannot be expected any more."""
        stats, images = self._stats_so_far(), int(self.config.data.train_batch_size)
        batch = images * int(self.config.actor_rollout_ref.rollout.n)
        refuse_unfinished(stats, self._settings.reward, batch, self._judge_urls())
        if self.config.algorithm.filter_groups.enable:
            refuse_endless(stats, images, self._settings.training.max_gen_batches)

    def _stats_so_far(self) -> RolloutStats:
        return merge(self._ask_workers("stats_so_far"))

    def _judge_urls(self) -> list[str]:
        return self._verifier.judge_urls

    def _give_up(self, error: SpeciaRLError) -> SpeciaRLError:
        """Save the last finished step, unless that is done; returns the error with what can be resumed from."""
        now, last = self.global_steps, self._progress.finished(self.global_steps)
        where = f"after step {now}" if last == now else f"step {now} was given up"
        if last < 1:
            return type(error)(f"{where}, and no step is finished: {error}; {AGAIN}")
        if tracked(Path(self.config.trainer.default_local_dir)) != last:
            if not self._progress.whole:
                where += " when its updates had begun"
                return type(error)(f"{where}, so the last checkpoint (trainer.save_freq) stands: {error}; {AGAIN}")
            if last != now and self.trainer_mode == "sync":  # the other modes save the prompts that are under way
                self.train_dataloader.load_state_dict(self._data_at_step)
                self.train_dataloader_it = None
            self.global_steps = last
            self._save_checkpoint()
        return type(error)(f"{where}, step {last} is saved: {error}; {AGAIN}")

    def _load_checkpoint(self) -> None:
        if self.config.trainer.resume_mode == "auto":
            repaired = repair_tracker(Path(self.config.trainer.default_local_dir))
            if repaired:
                logger.warning(repaired)
        super()._load_checkpoint()
        if self._uids is not None and self.trainer_mode != "sync":
            self._uids.take((tq.kv_list("train") or {}).get("train", {}))

    def _fetch_one_gen_batch(self) -> Any:
        batch = super()._fetch_one_gen_batch()
        if self._uids is not None:
            assign_non_tensor_stack(batch, "uid", self._uids.draw(self.global_steps, len(batch)))
        return batch

    def _balance_batch(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        if self._uids is not None:  # rollouts arrive in any order, and sums of floats depend on it
            batch.reorder(sorted(range(len(batch.keys)), key=batch.keys.__getitem__))
        batch = super()._balance_batch(batch, *args, **kwargs)
        padding.spread(batch, ranks=max(self.actor_rollout_wg._dispatch_info["actor"]) + 1)
        return batch

    def _compute_advantage(self, batch: Any, metrics: Any) -> Any:
        if self._settings.training.late_verdicts:
            with marked_timer("verdicts", self.timing_raw):
                scores = late_rewards.collect(
                    self.agent_loop_manager.agent_loop_workers,
                    self._look_around,
                    self._settings.reward.group_deadline_s + calls.REPLY_DEADLINE_S,
                )
            refuse_unrewarded(late_rewards.write(batch, scores), self._stats_so_far)
        return super()._compute_advantage(batch, metrics=metrics)

    def _update_actor(self, batch: Any, metrics: Any) -> Any:
        self._progress.updated()
        return super()._update_actor(batch, metrics=metrics)

    def _build_replay_buffer(self) -> Any:
        return Watch(self._look_around).over(super()._build_replay_buffer())

    def _validate(self) -> dict[str, float]:
        try:
            metrics: dict[str, float] = super()._validate()
        except Exception as error:  # without a single verdict veRL has nothing to average
            stats = self._drain(validate=True)
            if not stats.rollouts or stats.scored:
                raise
            outage = VerifierOutage("not one rollout of the validation has a verdict")
            if not self._training:
                raise outage from error
            self._refusal = outage
            return {}
        stats = self._drain(validate=True)
        metrics["val-core/unscorable_rate"] = stats.unscorable_rate
        metrics["val-core/verifier_wait_s"] = stats.waited_s
        return metrics

    def _val_metrics_update(
        self,
        data_sources: Any,
        sample_uids: Any,
        reward_extra_infos_dict: Any,
        sample_turns: Any,
        expected_acc_counts: dict[tuple[str, str], int] | None = None,
    ) -> dict[str, float]:
        metrics: dict[str, float] = super()._val_metrics_update(
            data_sources, sample_uids, reward_extra_infos_dict, sample_turns, expected_acc_counts
        )
        return metrics | validation_metrics(
            list(data_sources), list(sample_uids), reward_extra_infos_dict, expected_acc_counts or {}
        )

    def _compute_metrics(self, batch: Any, metrics: Any, timing_raw: Any, global_steps: int, epoch: int) -> None:
        super()._compute_metrics(batch, metrics, timing_raw, global_steps=global_steps, epoch=epoch)
        keys = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
        data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=["extra_fields"])
        infos = [fields["reward_extra_info"] for fields in data.pop("extra_fields").tolist()]
        low_margin = self._settings.training.low_margin
        metrics.update(training_metrics(infos, self._step_stats, self._verifier_totals, low_margin))
        if self._settings.training.samples_every:
            self._show_samples()

    def _log_rollout_data(self, batch: Any, timing_raw: Any, rollout_data_dir: str) -> None:
        super()._log_rollout_data(rollout_dump.without_padding(batch), timing_raw, rollout_data_dir)

    def _dump_generations(self, *, reward_extra_infos_dict: dict[str, list[Any]], **kwargs: Any) -> None:
        if "reward" not in reward_extra_infos_dict:  # a dump of training: veRL passes the keys and no record
            reward_extra_infos_dict |= rollout_dump.columns(reward_extra_infos_dict["uid"])
        super()._dump_generations(reward_extra_infos_dict=reward_extra_infos_dict, **kwargs)

    def _drain(self, validate: bool = False) -> RolloutStats:
        answers = self._ask_workers("drain_stats", validate)
        self._verifier_totals = self._verifier.stats() or [totals for _, totals in answers]
        return merge(stats for stats, _ in answers)

    def _show_samples(self) -> None:
        """Write the page of the groups that were sampled since the last call, if any were, and hand it to W&B."""
        training = self._settings.training
        fresh = [group for kept in self._ask_workers("drain_samples") for group in kept]
        if not fresh:
            return
        step = max(group.step for group in fresh)
        # In asynchronous modes a step's groups may end after it: the page grows then.
        groups = [group for group in self._shown + fresh if group.step == step]
        self._shown = groups = groups[: training.samples_per_step]
        try:
            page = sample_page.write(Path(training.samples_dir), step, groups, training.samples_kept)
        except OSError as error:  # a full disk must not cost the step
            logger.warning("no page of sampled rollouts for step %d: %s", step, error)
            return
        if "wandb" in self.logger.logger:
            import wandb

            self.logger.log({"speciarl/samples": wandb.Html(page, inject=False)}, self.global_steps, ["wandb"])

    def _ask_workers(self, method: str, *arguments: Any) -> list[Any]:
        return calls.ask(self.agent_loop_manager.agent_loop_workers, method, *arguments)


@register_trainer("speciarl")
class SpeciaRLTrainer(VerdictTrainer, PPOTrainerSync):
    """Generate, judge and learn in turns, on the same devices. What the paper does."""

    stock_mode = "sync"


@register_trainer("speciarl_colocate_async")
class SpeciaRLColocateAsyncTrainer(VerdictTrainer, PPOTrainerColocateAsync):
    """The next batch is generated, on the same devices, while verdicts of this one are still out."""

    stock_mode = "colocate_async"


@register_trainer("speciarl_separate_async")
class SpeciaRLSeparateAsyncTrainer(VerdictTrainer, PPOTrainerSeparateAsync):
    """Generation on devices of its own, which get the new weights after each training batch."""

    stock_mode = "separate_async"
