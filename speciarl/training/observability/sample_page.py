"""Sample page: sampled rollouts as one self-contained HTML page per step."""

import base64
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from speciarl.category import Category
from speciarl.metrics import key
from speciarl.training.observability.rollout_samples import SampledGroup, SampledRollout

_STYLE = """
:root { color-scheme: light dark; font-family: system-ui, sans-serif; }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
section { display: flex; gap: 1.5rem; border-top: 1px solid #8886; padding: 1rem 0; }
figure { margin: 0; width: 10rem; flex: none; overflow-wrap: anywhere; }
figure img { display: block; margin-bottom: .5rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .2rem .7rem .2rem 0; overflow-wrap: anywhere; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.earned { font-weight: 600; }
.dim { opacity: .6; font-size: .85em; }
details { white-space: pre-wrap; }
.tag { padding: 0 .4rem; border-radius: .6rem; white-space: nowrap; color: #000; }
"""
# From bad to good; text on them is black.
_COLOURS = {
    **dict(zip(map(key, Category), ("#f4a3a3", "#d9d9d9", "#fbe3a1", "#d9e8a0", "#a3dba3", "#8fd0c4"), strict=True)),
    key(None): "#f4a3a3",
    "unscorable": "#c9b8e8",
}
# Nothing on the page may run or be fetched, whatever the answers contain.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def render(title: str, groups: Iterable[SampledGroup]) -> str:
    """The page as HTML. Every text from outside is escaped."""
    sections = "\n".join(map(_section, groups))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="dim">c* is the best level that the group reached. Rows in bold earned a positive reward. A rollout without a
verdict left no trajectory.</p>
{sections}
</body>
</html>
"""


def write(folder: Path, step: int, groups: Sequence[SampledGroup], kept: int) -> str:
    """Write a step's page atomically and remove all but the newest `kept` pages; returns the page. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step:07d}.html"
    page = render(f"Rollouts of step {step}", groups)
    draft = path.with_suffix(f".{os.getpid()}.draft")
    draft.write_text(page, encoding="utf-8")
    os.replace(draft, path)
    for old in sorted(folder.glob("step_*.html"))[:-kept]:
        old.unlink(missing_ok=True)
    return page


def _section(group: SampledGroup) -> str:
    picture = '<span class="dim">no image</span>'
    if group.thumbnail is not None:
        picture = f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(group.thumbnail).decode()}">'
    origin = " · ".join(filter(None, (group.data_source, group.sample_id)))
    rows = "\n".join(_row(rollout) for rollout in group.rollouts)
    return f"""<section>
<figure>{picture}<figcaption><b>{escape(group.ground_truth)}</b><br>c* {_tag(group.reference)}<br>
<span class="dim">{escape(origin)}</span></figcaption></figure>
<table>
<tr><th>answer</th><th>category</th><th>reward</th><th>margin</th><th>verdict</th></tr>
{rows}
</table>
</section>"""


def _row(rollout: SampledRollout) -> str:
    answer = "<i>none</i>" if rollout.answer is None else escape(rollout.answer)
    earned = ' class="earned"' if rollout.reward is not None and rollout.reward > 0 else ""
    return (
        f"<tr{earned}><td>{answer}<details class=dim><summary>response</summary>{escape(rollout.response)}</details>"
        f'</td><td>{_tag(rollout.category)}</td><td class="number">{_number(rollout.reward)}</td>'
        f'<td class="number">{_number(rollout.margin)}</td><td class="dim">{escape(rollout.provenance)}</td></tr>'
    )


def _tag(name: str) -> str:
    return f'<span class="tag" style="background:{_COLOURS.get(name, "#fff")}">{escape(name.replace("_", " "))}</span>'


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
