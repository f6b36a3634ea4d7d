"""Reporting trainer: the part of our trainer that collects counters and writes metrics, dumps and sample pages."""

import logging
from pathlib import Path
from typing import Any

import transfer_queue as tq
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from speciarl.config import SpeciaRLConfig, load
from speciarl.training.agent_loop import calls
from speciarl.training.observability import rollout_dump, sample_page
from speciarl.training.observability.metrics import training_metrics, validation_metrics
from speciarl.training.observability.rollout_samples import SampledGroup
from speciarl.training.observability.rollout_stats import RolloutStats, merge
from speciarl.training.trainer.run_verifier import RunVerifier

logger = logging.getLogger(__name__)


class ReportingTrainer(PPOTrainer):
    """veRL's trainer with the metrics, rollout dumps and sample pages of SpeciaRL."""

    global_steps: int

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._settings: SpeciaRLConfig = load(config)
        self._verifier = RunVerifier(self._settings, str(config.trainer.device))
        self._step_stats = RolloutStats()
        """Rollout counters of the step that ended last."""
        self._verifier_totals: list[dict[str, float]] = []
        """The verifier's counters since its start: of the run's own service, else of each worker's client."""
        self._shown: list[SampledGroup] = []
        """Groups on the newest sample page."""

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
        # Padding rows are copies of a real row with its record, which would count twice.
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
        keys, rollout = reward_extra_infos_dict["uid"], self.config.actor_rollout_ref.rollout
        validate = "reward" in reward_extra_infos_dict
        # A dump of training: veRL passes keys without records. They are fetched now; veRL clears the rows next.
        if not validate:
            reward_extra_infos_dict |= rollout_dump.columns(keys)
        rollouts = int(rollout.val_kwargs.n if validate else rollout.n)
        settings = rollout_dump.reward_settings(self._settings.reward, rollouts, validate)
        columns = reward_extra_infos_dict | {"reward_settings": [settings] * len(keys)}
        super()._dump_generations(reward_extra_infos_dict=columns, **kwargs)

    def _drain_stats(self, validate: bool = False) -> RolloutStats:
        replies = self._ask_workers("drain_stats", validate)
        # A worker's client sees its own requests only; the run's service sees those of all.
        self._verifier_totals = self._verifier.stats() or [totals for _, totals in replies]
        return merge(stats for stats, _ in replies)

    def _show_samples(self) -> None:
        """Write the page of the groups that were sampled since the last call, if any; log it to W&B where in use."""
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

            # To W&B alone: other loggers cannot take HTML.
            self.logger.log({"speciarl/samples": wandb.Html(page, inject=False)}, self.global_steps, ["wandb"])

    def _ask_workers(self, method: str, *arguments: Any) -> list[Any]:
        return calls.ask(self.agent_loop_manager.agent_loop_workers, method, *arguments)

    def _stats_so_far(self) -> RolloutStats:
        return merge(self._ask_workers("stats_so_far"))
