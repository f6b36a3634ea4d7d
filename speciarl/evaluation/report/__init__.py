"""Report of an evaluation: in a terminal, as Markdown, as CSV and parquet, and as one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from speciarl.evaluation.config import EvaluationConfig
from speciarl.evaluation.results import Results


def show(results: Results, console: Console) -> None:
    """Print the paper's table of the results."""
    from speciarl.evaluation.report import terminal

    terminal.show(results, console)


def write(config: EvaluationConfig, results: Results, out: Path) -> list[Path]:
    """Write report.md, report.csv, report.parquet and report.html into `out`, which holds the tables; returns them.

    Results go to TensorBoard and W&B as well when `config` asks for it. The same results and tables give the same
    bytes. Raises OSError when a file cannot be written and DataError when a table cannot be read.
    """
    from speciarl.evaluation.report import loggers, markdown, page, tidy
    from speciarl.utils.atomic_files import write_text

    files = [out / f"report.{ending}" for ending in ("md", "csv", "parquet", "html")]
    write_text(files[0], markdown.render(results))
    tidy.write_csv(results, files[1])
    tidy.write_parquet(results, files[2])
    write_text(files[3], page.render(config, results, out))
    loggers.log(config, results, out)
    return files
