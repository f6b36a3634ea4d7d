"""Anti-gaming set: predictions built to be rewarded without naming the ground truth, with a prompt's own names."""

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from speciarl.category import Category
from speciarl.verdict import Pair
from speciarl.verifier_server.judge.labels import Scheme
from speciarl.verifier_server.judge.prompt import Golden, Prompt, prompt_directory

_LOOKALIKE = str.maketrans("aceopxyi", "асеорхуі")  # noqa: RUF001  (homoglyphs on purpose)
_LEET = str.maketrans("aeio", "4310")


def gaming_set(prompt: Prompt) -> tuple[Golden, ...]:
    """Pairs that no judge may put above `abstain`, each with its correct categories in the prompt's label set."""
    content = _shipped()
    names = prompt.names or tuple(content["names"])
    pairs = []
    for index, attack in enumerate(content["attacks"]):
        turn = index % len(names)
        allowed = [Category.from_label(label) for label in attack.get("allow", ["wrong"])]
        expected = frozenset(allowed) & frozenset(prompt.scheme.categories)
        for truth, prediction in _filled(attack["prediction"], names[turn:] + names[:turn], prompt.scheme):
            pairs.append(Golden(Pair(truth, prediction), expected, attack["kind"]))
    return tuple(pairs)


def _shipped() -> Any:
    text = (prompt_directory() / "_gaming.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def _filled(template: str, names: Sequence[str], scheme: Scheme) -> Iterator[tuple[str, str]]:
    """Ground truth and prediction; once for each label that would be rewarded, if the template holds a label."""
    truth, other, third = names[:3]
    # The truth comes last in the list: a judge that reads the first name only must not pass by luck.
    words = {
        "{truth}": truth,
        "{other}": other,
        "{third}": third,
        "{list}": ", ".join((*names[1:], truth)),
        "{lookalike}": truth.translate(_LOOKALIKE),
        "{leet}": truth.translate(_LEET),
    }
    for mark, text in words.items():
        template = template.replace(mark, text)
    rewarded = [scheme.label(category) for category in scheme.categories if category >= Category.SPECIFIC]
    for label in rewarded if "{label}" in template else [""]:
        yield truth, template.replace("{label}", label)
