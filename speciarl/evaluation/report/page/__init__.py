"""Page of a report: one HTML file of numbers, charts and samples, which requests nothing and runs only our code."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

import yaml
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from speciarl.evaluation.config import EvaluationConfig
from speciarl.evaluation.report import number_format
from speciarl.evaluation.report.page import document
from speciarl.evaluation.report.page.embed import as_json, policy
from speciarl.evaluation.report.scopes import (
    LADDER,
    TITLES,
    failed_share,
    label,
    missing,
    run_of,
    scopes,
    unscored_share,
)
from speciarl.evaluation.report.summary import sentences
from speciarl.evaluation.results import Results

SCRIPTS = (
    "elements.js", "data.js", "state.js", "leaderboard.js", "plane.js", "bars.js", "curves.js", "matrix.js",
    "classes.js", "filters.js", "browser.js", "main.js",
)  # fmt: skip
"""The page's program, in this order in one function."""


def render(config: EvaluationConfig, results: Results, out: Path) -> str:
    """The page as HTML. The same results, tables and data files give the same text.

    Raises DataError when a table cannot be read; without tables it has no samples, without data files no pictures.
    """
    style, script = _asset("page.css"), _script()
    numbers = as_json(document.numbers(results))
    index, samples = document.questions(config, results, out, spent=len(numbers.encode()))
    return _template().render(
        results=results,
        summary=sentences(results),
        scopes=scopes(results),
        level=f"{results.settings['metrics']['bootstrap']['level']:.0%}",
        metrics=LADDER,
        titles=TITLES,
        form=number_format,
        label=lambda cell: label(run_of(cell), results),
        unscored=unscored_share,
        failed=failed_share,
        missing=missing,
        verdicts=sum(cell.answers - sum(cell.unscored.values()) for cell in results.cells),
        settings=yaml.safe_dump(dict(results.settings), allow_unicode=True, sort_keys=True, width=110),
        policy=policy(style, script),
        style=Markup(style),  # ours, not escaped: the policy's hashes are of the very text
        script=Markup(script),
        data={
            "numbers": Markup(numbers),
            "index": Markup(as_json(index)),
            "samples": Markup(as_json(samples)),
        },
    )


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.from_string(_asset("page.html.jinja"))


def _script() -> str:
    return '(() => {\n"use strict";\n' + "\n".join(map(_asset, SCRIPTS)) + "})();\n"


def _asset(name: str) -> str:
    return (resources.files("speciarl.evaluation.report.page") / "assets" / name).read_text(encoding="utf-8")
