"""veRL's trainers plus our judges, our metrics and the failure budget.

One class for each of veRL's modes, named in ``trainer.v1.trainer_mode`` by the options of ``recipe/mode``; what is ours
is in `VerdictTrainer`, once. The optimisation is veRL's, untouched. Modes: docs/trainer_modes.md.
"""

import logging
import time
from pathlib import Path
from typing import Any, ClassVar

import ray
import transfer_queue as tq
from omegaconf import open_dict
from verl.trainer.ppo.v1.trainer_base import PPOTrainer, register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from speciarl.config import load
from speciarl.errors import FailureBudgetExceeded, VerifierOutage
from speciarl.training import sample_page
from speciarl.training.judges import ManagedJudges
from speciarl.training.metrics import training_metrics, validation_metrics
from speciarl.training.stats import RolloutStats, merge

logger = logging.getLogger(__name__)

WORKER_REPLY_DEADLINE_S = 60.0
"""Agent-loop workers answer from memory; one that takes longer is dead."""


class VerdictTrainer(PPOTrainer):
    """What knows about verdicts. Stands before one of veRL's trainers in the bases of a registered class."""

    stock_mode: ClassVar[str]
    """veRL's own name of the mode."""

    def __init__(self, config: Any) -> None:
        with open_dict(config):
            config.trainer.v1.trainer_mode = self.stock_mode  # veRL compares this name in several places
        super().__init__(config)
        self._settings = load(config)
        self.replay_buffer.poll_interval = self._settings.training.poll_interval_s
        self._judges = ManagedJudges(self._settings, str(config.trainer.device))
        self._step_stats = RolloutStats()
        self._verifier_totals: list[dict[str, float]] = []

    def init(self) -> None:
        """Start the judges while veRL builds its workers, then hand their addresses to the agent loops."""
        self._judges.launch()
        try:
            super().init()
            urls = self._judges.wait()
        except BaseException:
            self._judges.stop()
            raise
        if urls:
            with open_dict(self.config):
                self.config.speciarl.verifier.update(endpoints=urls, pool=None)

    def fit(self, agent_loop_manager: Any) -> None:
        """Train; the judges stop with the run."""
        try:
            super().fit(agent_loop_manager)
        finally:
            self._judges.stop()

    def on_step_end(self) -> None:
        """Collect the workers' counters and stop the run, resumably, when too much went unscored."""
        super().on_step_end()
        self._step_stats = self._drain()
        rate, limit = self._step_stats.unscorable_rate, self._settings.reward.max_unscorable_rate
        if rate > limit:
            self._save_checkpoint()
            raise FailureBudgetExceeded(
                f"step {self.global_steps}: {rate:.0%} of the rollouts have no verdict "
                f"({_reasons(self._step_stats)}), more than speciarl.reward.max_unscorable_rate={limit:.0%}. A "
                "checkpoint was saved; mend the verifier and start the same command again"
            )

    def _add_prompts_to_generate(self, num_prompts: int) -> int:
        self._check_outage()
        return int(super()._add_prompts_to_generate(num_prompts))

    def _check_outage(self) -> None:
        """Raise when the verifier has been silent for longer than allowed; refills would go on for ever."""
        answers = self._ask_workers("silent_since")
        asked = [since for judged, since in answers if judged or since is not None]
        if not asked or any(since is None for since in asked):
            return
        silent_s = time.time() - max(asked)
        if silent_s > self._settings.reward.outage_deadline_s:
            self._save_last_finished_step()
            judge = self.config.speciarl.verifier
            addresses = judge.get("endpoints") or [url for url in [judge.get("service_url")] if url]
            raise VerifierOutage(
                f"no verdict for {silent_s:.0f} s (speciarl.reward.outage_deadline_s="
                f"{self._settings.reward.outage_deadline_s:.0f}). Check the judge at "
                f"{', '.join(addresses) or 'its configured address'} and start the same command again; it resumes"
            )

    def _save_last_finished_step(self) -> None:
        if self.global_steps > 1:
            self.global_steps -= 1  # the weights are those of the step before this unfinished one
            self._save_checkpoint()

    def _validate(self) -> dict[str, float]:
        metrics: dict[str, float] = super()._validate()
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
        self._show_samples()

    def _drain(self, validate: bool = False) -> RolloutStats:
        answers = self._ask_workers("drain_stats", validate)
        self._verifier_totals = [totals for _, totals in answers]
        return merge(stats for stats, _ in answers)

    def _show_samples(self) -> None:
        """Write the page of this step's sampled groups, if any were, and hand it to W&B."""
        training = self._settings.training
        if not training.samples_every or self.global_steps % training.samples_every:
            return
        groups = [group for kept in self._ask_workers("drain_samples") for group in kept]
        groups = groups[: training.samples_per_step]
        if not groups:
            return
        try:
            page = sample_page.write(Path(training.samples_dir), self.global_steps, groups, training.samples_kept)
        except OSError as error:  # a full disk must not cost the step
            logger.warning("no sample page for step %d: %s", self.global_steps, error)
            return
        if "wandb" in self.logger.logger:
            import wandb

            self.logger.log({"speciarl/samples": wandb.Html(page, inject=False)}, self.global_steps, ["wandb"])

    def _ask_workers(self, method: str, *arguments: Any) -> list[Any]:
        workers = self.agent_loop_manager.agent_loop_workers
        replies: list[Any] = ray.get(
            [getattr(worker, method).remote(*arguments) for worker in workers], timeout=WORKER_REPLY_DEADLINE_S
        )
        return replies


def _reasons(stats: RolloutStats) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in stats.unscorable.most_common()) or "no reasons"


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
