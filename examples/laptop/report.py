"""Before and after: tables, a plot and sample images from the validation answers veRL wrote during a run."""

import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from rich.table import Table

from speciarl.category import Category
from speciarl.metrics import DEFINITIONS, UNPARSABLE, Summary, key, summarise

CATEGORY_KEYS = [key(category) for category in Category] + [UNPARSABLE]
COLOURS = ["#c0392b", "#95a5a6", "#f5d76e", "#7fb3d5", "#27ae60", "#145a32", "#000000"]


@dataclass(frozen=True, slots=True)
class Record:
    """One validated answer."""

    sample_id: str
    source: str
    stratum: str
    truth: str
    answer: str
    category: Category | None


def read_records(path: Path) -> dict[str, Record]:
    """The answers of one validation pass, by sample id (``<step>.jsonl`` in ``trainer.validation_data_dir``)."""
    records = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        category = None if row["category"] == UNPARSABLE else Category[row["category"].upper()]
        records[row["sample_id"]] = Record(
            row["sample_id"], row["data_source"], row["stratum"], row["gts"], row["answer"], category
        )
    return records


def sections(in_domain: str) -> list[tuple[str, Callable[[Record], bool]]]:
    """The rows of the table: in and out of domain, then each split by how well the model knows the concept."""
    rows: list[tuple[str, Callable[[Record], bool]]] = []
    for where, inside in (("in domain", True), ("out of domain", False)):
        rows.append((where, lambda record, inside=inside: (record.source == in_domain) is inside))
        for stratum in ("known", "partial", "unknown"):
            rows.append(
                (
                    f"  {stratum}",
                    lambda record, inside=inside, stratum=stratum: (
                        (record.source == in_domain) is inside and record.stratum == stratum
                    ),
                )
            )
    return rows


def summary(records: Iterable[Record], chosen: Callable[[Record], bool]) -> Summary | None:
    """Metrics of the chosen answers."""
    return summarise(record.category for record in records if chosen(record))


def comparison(before: dict[str, Record], after: dict[str, Record], in_domain: str) -> list[list[str]]:
    """Table cells, one row per section and side."""
    cells = []
    for name, chosen in sections(in_domain):
        for side, records in (("before", before), ("after", after)):
            result = summary(records.values(), chosen)
            if result is None:
                continue
            numbers = [f"{result.rates[category]:.2f}" for category in CATEGORY_KEYS]
            specificity = "-" if result.specificity is None else f"{result.specificity:.3f}"
            cells.append(
                [name if side == "before" else "", side, str(result.count), *numbers, f"{result.correctness:.3f}",
                 specificity, f"{result.hm:.3f}"]
            )  # fmt: skip
    return cells


HEADER = ["", "", "n", *[name.replace("_", " ") for name in CATEGORY_KEYS], "correctness", "specificity", "HM"]


SHORT = ["", "", "n", "W", "A", "G", "S-", "S", "S+", "none", "corr", "spec", "HM"]
"""Headings that fit 80 columns, in the order of `HEADER`."""


def terminal_table(cells: Sequence[Sequence[str]]) -> Table:
    """The comparison for a terminal of 80 columns."""
    legend = "W wrong, A abstain, G generic, S- less specific, S specific, S+ more specific, none: no answer found. "
    table = Table(
        title="Greedy validation, before and after", caption=legend + DEFINITIONS, box=None, padding=(0, 1, 0, 0)
    )
    for index, heading in enumerate(SHORT):
        table.add_column(heading, no_wrap=True, justify="left" if index < 2 else "right")
    for row in cells:
        table.add_row(*(cell.removeprefix("0") if "." in cell else cell for cell in row), style=_style(row))
    return table


def _style(row: Sequence[str]) -> str:
    return "bold" if row[1] == "after" else ""


def markdown_table(cells: Sequence[Sequence[str]]) -> str:
    """The comparison for a README."""
    lines = [HEADER, ["---"] * len(HEADER), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{DEFINITIONS}\n"


def read_mix(logs: Iterable[Path]) -> dict[int, list[float]]:
    """Category shares of the training rollouts by step, from veRL's file logs; later files win where a run resumed."""
    mix: dict[int, list[float]] = {}
    for log in logs:
        for line in log.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if f"speciarl/rate/{CATEGORY_KEYS[0]}" in row["data"]:
                mix[row["step"]] = [row["data"][f"speciarl/rate/{name}"] for name in CATEGORY_KEYS]
    return dict(sorted(mix.items()))


def plot(logs: Iterable[Path], before: dict[str, Record], after: dict[str, Record], in_domain: str, out: Path) -> None:
    """Left: the category mix of the training rollouts over steps. Right: the three metrics before and after."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    by_step = read_mix(logs)
    steps, shares = list(by_step), list(by_step.values())
    figure, (mix, bars) = pyplot.subplots(1, 2, figsize=(12, 4.2))
    mix.stackplot(steps, list(zip(*shares, strict=True)), labels=CATEGORY_KEYS, colors=COLOURS)
    mix.set(title="sampled training rollouts", xlabel="step", ylabel="share", ylim=(0, 1), xlim=(steps[0], steps[-1]))
    mix.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncol=4, fontsize=8)
    rows = sections(in_domain)
    for offset, (where, chosen) in enumerate((rows[0], rows[4])):
        for shift, (side, records) in enumerate((("before", before), ("after", after))):
            result = summary(records.values(), chosen)
            if result is None:
                continue
            values = [result.correctness, result.specificity or 0.0, result.hm]
            positions = [3 * index + offset * 1.2 + shift * 0.5 for index in range(3)]
            drawn = bars.bar(
                positions, values, 0.45, label=f"{where}, {side}", color=f"C{offset}", alpha=0.45 if shift == 0 else 1.0
            )
            bars.bar_label(drawn, fmt="%.2f", fontsize=7)
    bars.set_xticks([0.85, 3.85, 6.85], ["correctness", "specificity", "HM"])
    bars.set(title="greedy validation", ylim=(0, 1.12))
    bars.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncol=4, fontsize=8)
    figure.tight_layout()
    figure.savefig(out, dpi=110, bbox_inches="tight")
    pyplot.close(figure)


def pick_examples(before: dict[str, Record], after: dict[str, Record], in_domain: str) -> list[tuple[Record, Record]]:
    """A handful that shows what happened: gained names, names rightly not tried, and one that went wrong."""
    pairs = [(before[name], after[name]) for name in sorted(before.keys() & after.keys())]

    def first(count: int, chosen: Callable[[Record, Record], bool]) -> list[tuple[Record, Record]]:
        return [pair for pair in pairs if chosen(*pair)][:count]

    def gained(old: Record, new: Record) -> bool:
        return old.category is not None and new.category is Category.SPECIFIC and old.category < Category.SPECIFIC

    def modest(old: Record, new: Record) -> bool:
        return new.stratum == "unknown" and new.category is Category.LESS_SPECIFIC and old.category == Category.GENERIC

    return [
        *first(3, lambda old, new: gained(old, new) and new.source == in_domain),
        *first(2, lambda old, new: gained(old, new) and new.source != in_domain),
        *first(2, modest),
        *first(1, lambda old, new: new.category is Category.WRONG and old.category is not Category.WRONG),
    ]


def contact_sheet(examples: Sequence[tuple[Record, Record]], test_file: Path, out: Path) -> None:
    """The examples' images with truth and answers as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    wanted = {old.sample_id for old, _ in examples}
    images = {}
    for row in pq.read_table(test_file, columns=["images", "extra_info"]).to_pylist():
        if row["extra_info"]["sample_id"] in wanted:
            images[row["extra_info"]["sample_id"]] = Image.open(io.BytesIO(row["images"][0]["bytes"]))
    figure, axes = pyplot.subplots(1, len(examples), figsize=(2.1 * len(examples), 2.9), squeeze=False)
    for axis, (old, new) in zip(axes[0], examples, strict=True):
        axis.imshow(images[old.sample_id])
        axis.set_axis_off()
        axis.set_title(
            f"{old.truth}\nbefore: {old.answer}\nafter: {new.answer}\n({key(new.category).replace('_', ' ')})",
            fontsize=7,
        )
    figure.tight_layout()
    figure.savefig(out, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
