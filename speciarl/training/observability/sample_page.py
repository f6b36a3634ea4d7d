"""Sample page: sampled rollouts as one self-contained HTML page per step."""

import base64
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template

from speciarl.training.observability.rollout_samples import SampledGroup
from speciarl.utils.atomic_files import write_text


def render(title: str, groups: Iterable[SampledGroup]) -> str:
    """The page as HTML. Every text from outside is escaped."""
    return _template().render(title=title, groups=groups)


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    source = resources.files("speciarl.training.observability") / "sample_page.html.jinja"
    return environment.from_string(source.read_text(encoding="utf-8"))


def write(folder: Path, step: int, groups: Sequence[SampledGroup], kept: int) -> str:
    """Write a step's page atomically and remove all but the newest `kept` pages; returns the page. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step:07d}.html"
    page = render(f"Rollouts of step {step}", groups)
    write_text(path, page)
    for old in sorted(folder.glob("step_*.html"))[:-kept]:
        old.unlink(missing_ok=True)
    return page
