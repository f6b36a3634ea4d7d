"""Loggers of results: scalars for TensorBoard and W&B, when the configuration asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from speciarl.evaluation.config import EvaluationConfig
from speciarl.evaluation.report.scopes import Run, run_of
from speciarl.evaluation.results import Results


def scalars(results: Results) -> Iterator[tuple[Run, str, float]]:
    """Run, name (``DATASET/METRIC``; of an average ``mean_GROUP/METRIC``) and value of every defined number."""
    for cell in results.cells:
        for name, estimate in sorted(cell.metrics.items()):
            if estimate.value is not None:
                yield run_of(cell), f"{cell.dataset}/{name}", estimate.value
    for average in results.averages:
        for name, estimate in sorted(average.metrics.items()):
            if estimate.value is not None:
                yield run_of(average), f"mean_{average.group}/{name}", estimate.value


def log(config: EvaluationConfig, results: Results, out: Path) -> None:
    """Log to where `log_to` says, each run (a model with a prompt, by a judge) as a run of its own."""
    by_run: dict[Run, dict[str, float]] = {}
    for run, name, value in scalars(results):
        by_run.setdefault(run, {})[name] = value
    if "tensorboard" in config.log_to:
        _to_tensorboard(by_run, out / "tensorboard")
    if "wandb" in config.log_to:
        _to_wandb(config.name, by_run, out)


def _to_tensorboard(by_run: dict[Run, dict[str, float]], folder: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    for run, values in by_run.items():
        with SummaryWriter(str(folder / run.judge / run.model / run.prompt)) as writer:
            for name, value in values.items():
                writer.add_scalar(name, value, 0)


def _to_wandb(project: str, by_run: dict[Run, dict[str, float]], out: Path) -> None:
    import wandb

    for run, values in by_run.items():
        about = {"model": run.model, "prompt": run.prompt, "judge": run.judge}
        with wandb.init(project=project, name=f"{run.name} by {run.judge}", dir=str(out), config=about) as started:
            started.summary.update(values)
