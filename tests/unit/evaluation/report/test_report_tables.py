"""Reports as text and tables: forms of numbers, summary, terminal, Markdown, CSV and parquet."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from speciarl.evaluation import report
from speciarl.evaluation.report import loggers, markdown, number_format, tidy
from speciarl.evaluation.report.scopes import best_first, scopes
from speciarl.evaluation.report.summary import sentences
from speciarl.evaluation.results import Estimate, Results


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.883, ".883"), (1.0, "1.000"), (0.0, ".000"), (-0.6, "-.600"), (48.04, "48.0"), (None, "—"), (0.9999, "1.000")],
)
def test_numbers_read_as_in_the_paper(value: float | None, text: str) -> None:
    assert number_format.number(value) == text


def test_a_share_says_none_only_where_there_is_none() -> None:
    assert [number_format.share(value) for value in (0, 1e-6, 0.0125)] == ["0", "<0.1 %", "1.2 %"]


def test_scopes_are_the_broadest_average_first_and_no_average_twice(results: Results) -> None:
    both = replace(results.averages[0], group="all", datasets=["flowers", "pets", "aircraft", "cub"])
    again = replace(results.averages[0], group="the same two")
    found = scopes(replace(results, averages=[*results.averages, again, both]))
    assert [scope.name for scope in found] == ["all", "fine-grained", "flowers", "pets", "aircraft", "cub"]


def test_best_first_keeps_judges_apart(results: Results) -> None:
    rows = best_first(scopes(results)[0].rows)
    assert [row.run.judge for row in rows] == ["llama"] * 4 + ["qwen"] * 4
    values = [row.value("hm") for row in rows[:4]]
    assert values == sorted(values, key=lambda value: -(value or 0))


def test_summary_names_the_best_and_its_gain_on_the_first(results: Results) -> None:
    scope = scopes(results)[0]
    best = best_first(scope.rows)[0]
    first, second = sentences(results)
    assert best.label in first
    assert number_format.number(best.value("hm")) in first
    gain = (best.value("hm") or 0) - (scope.rows[0].value("hm") or 0)
    assert "base" in second
    assert number_format.change(gain) in second


def test_summary_takes_the_interval_of_the_paired_difference(results: Results) -> None:
    paired = replace(results.differences[2], second="sft/as_built", dataset="fine-grained", metric="hm", judge="llama")
    known = replace(paired, estimate=Estimate(0.1, 0.05, 0.15))
    only_sft = [one for one in results.averages if one.model in ("base", "sft") and one.group == "fine-grained"]
    cells = [cell for cell in results.cells if cell.model in ("base", "sft")]
    _, second = sentences(replace(results, cells=cells, averages=only_sft, differences=[known]))
    assert "+.100 [+.050, +.150]" in second


def test_summary_of_many_data_sets_tells_the_least_and_the_most(results: Results) -> None:
    everywhere = [
        replace(one, group="all", datasets=["flowers", "pets", "aircraft", "cub"]) for one in results.averages
    ]
    first_of_each = list({(one.model, one.judge): one for one in everywhere}.values())
    _, second = sentences(replace(results, averages=first_of_each))
    assert second.count("[") == 2
    assert "of 4 (p < .05 after Holm)" in second


def test_summary_of_one_run_tells_what_is_unscored(results: Results) -> None:
    cell = replace(results.cells[0], unscored={"timeout": 6})
    first, second = sentences(replace(results, cells=[cell], averages=[], differences=[]))
    assert "reaches HM" in first
    assert "5.0 %" in second  # 6 of 120


def test_summary_of_several_runs_tells_the_most_that_is_unscored(results: Results) -> None:
    scored = [replace(cell, unscored={}) for cell in results.cells]
    assert "unscored" not in sentences(replace(results, cells=scored))[1]
    lost = [*scored[:2], replace(scored[2], unscored={"timeout": 60}), *scored[3:]]
    _, second = sentences(replace(results, cells=lost))
    assert f"Of {lost[2].model}, up to 50.0 % of a cell is unscored; its HM lies within" in second


def test_summary_counts_what_is_surely_worse_where_the_next_is_worse(results: Results) -> None:
    names = ["flowers", "pets", "aircraft", "cub"]
    two = [
        replace(
            results.averages[0], model=model, judge="llama", group="all", datasets=names, metrics={"hm": Estimate(hm)}
        )
        for model, hm in (("base", 0.8), ("sft", 0.7))
    ]
    cells = [cell for cell in results.cells if cell.model in ("base", "sft") and cell.judge == "llama"]
    like = replace(results.differences[0], first="base/as_built", second="sft/as_built", judge="llama", metric="hm")
    values = ((-0.2, -0.1), (-0.2, 0.1), (0.1, 0.05), (-0.1, -0.05))  # the second is sure only if all were scored
    differences = [
        replace(like, dataset=name, p_holm=0.01, estimate=Estimate(value, value, value, value - 0.1, bound))
        if value < 0
        else replace(like, dataset=name, p_holm=0.01, estimate=Estimate(value, value, value, bound, value))
        for name, (value, bound) in zip(names, values, strict=True)
    ]
    _, second = sentences(replace(results, cells=cells, averages=two, differences=differences))
    assert "surely worse on 2 of 4" in second
    turned = [replace(two[0], model="sft"), replace(two[1], model="base")]
    _, second = sentences(replace(results, cells=cells, averages=turned[::-1], differences=differences))
    assert "surely better on 1 of 4" in second


def test_markdown_tells_failures_and_reasons_of_one_name_apart_and_what_is_sure(results: Results) -> None:
    cell = replace(results.cells[0], unscored={"timeout": 3}, failed={"timeout": 2})
    sure = replace(results.differences[0], p_holm=0.01, estimate=Estimate(0.2, 0.1, 0.3, 0.15, 0.25))
    open_still = replace(sure, estimate=Estimate(0.2, 0.1, 0.3, -0.05, 0.25))
    text = markdown.render(replace(results, cells=[cell, *results.cells[1:]], differences=[sure, open_still]))
    assert "| timeout 3, questions failed: timeout 2 |" in text
    assert "| **+.200 [+.100, +.300]** | .150 to .250 |" in text
    assert "| +.200 [+.100, +.300] | -.050 to .250 |" in text


def test_terminal_shows_shares_above_the_budget_in_red(results: Results) -> None:
    shown = Console(record=True, width=140, file=io.StringIO(), force_terminal=True)
    cells = [replace(results.cells[0], unscored={"timeout": 60}), *results.cells[1:]]
    report.show(replace(results, cells=cells), shown)
    text = shown.export_text(styles=True)
    assert "\x1b[1;31m50.0 %" in text
    assert "fine-grained (average of flowers, pets)" in text


def test_markdown_has_all_parts_and_runs_nothing(results: Results) -> None:
    text = markdown.render(replace(results, name="a | b <script>", definitions={"hm": "mean ``` of"}))
    assert text.startswith("# a \\| b \\<script\\>\n")
    for part in ("## Differences", "## What is not known", "## Definitions", "## Versions", "## Settings", "p (Holm)"):
        assert part in text
    rows = [line for line in text.splitlines() if line.startswith("| speciarl")]
    assert len(rows) >= 5


def test_a_fence_is_longer_than_any_in_the_settings(results: Results) -> None:
    text = markdown.render(replace(results, settings={**results.settings, "prompts": ["````\nnot the end"]}))
    assert "`````yaml" in text


def test_csv_and_parquet_hold_all_numbers(results: Results, tmp_path: Path) -> None:
    tidy.write_csv(results, tmp_path / "report.csv")
    tidy.write_parquet(results, tmp_path / "report.parquet")
    rows = list(csv.DictReader((tmp_path / "report.csv").open(encoding="utf-8", newline="")))
    table = pq.read_table(tmp_path / "report.parquet").to_pylist()
    assert len(rows) == len(table)
    for row, same in zip(rows, table, strict=True):
        assert (float(row["value"]) if row["value"] else None) == same["value"]
        assert row["metric"] == same["metric"]
    cell = results.cells[0]
    found = [
        row
        for row in table
        if (row["kind"], row["model"], row["dataset"], row["metric"]) == ("cell", "base", "flowers", "hm")
    ]
    assert [row["lower_bound"] for row in found if row["judge"] == "llama"] == [cell.metrics["hm"].lower_bound]
    best = [row for row in table if row["kind"] == "best of k" and row["metric"] == "hm" and row["model"] == "base"]
    assert {row["k"] for row in best} == {1, 2, 3}
    assert sum(row["kind"] == "difference" for row in table) == len(results.differences)


@given(st.sampled_from("=+-@\t\r"), st.text(max_size=20))
def test_a_spreadsheet_runs_no_name(sign: str, rest: str) -> None:
    assert tidy._plain(sign + rest).startswith("'")


def test_negative_numbers_stay_numbers(results: Results, tmp_path: Path) -> None:
    tidy.write_csv(replace(results, cells=[], averages=[]), tmp_path / "report.csv")
    rows = list(csv.DictReader((tmp_path / "report.csv").open(encoding="utf-8", newline="")))
    assert any(float(row["value"]) < 0 for row in rows)


def test_scalars_are_of_defined_numbers_only(results: Results) -> None:
    undefined = replace(results.cells[0], metrics={**results.cells[0].metrics, "hm": Estimate(None)})
    names = [name for run, name, _ in loggers.scalars(replace(results, cells=[undefined])) if run.model == "base"]
    assert "flowers/correctness" in names
    assert "flowers/hm" not in names
    assert "mean_fine-grained/hm" in names
