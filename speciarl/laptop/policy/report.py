"""Report on what the miniature policy says: greedy, sampled and best of ten, per domain and stratum."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from data_prep.emoji.concepts import TRAIN_DOMAIN
from data_prep.emoji.facts import Stratum
from data_prep.emoji.taxonomy import taxonomy
from speciarl.answer import parse
from speciarl.category import Category
from speciarl.laptop.policy.picture_bank import Pictures
from speciarl.laptop.policy.runner import PolicyRunner, patches
from speciarl.laptop.world import World
from speciarl.metrics import summarise
from speciarl.taxonomy import Node, Taxonomy
from speciarl.verdict import Pair

SAMPLES = 10
_BATCH = 64


@dataclass(frozen=True)
class Outcome:
    """All that was said to one picture; None stands for a response without an answer."""

    concept: int
    greedy: Category | None
    sampled: tuple[Category | None, ...]

    @property
    def best(self) -> Category | None:
        """The best category among the samples."""
        return max((kind for kind in self.sampled if kind is not None), default=None)


def world_taxonomy(world: World) -> Taxonomy:
    """The exact judge of the world's concepts."""
    nodes = taxonomy(world.concepts)["nodes"]
    return Taxonomy(Node(node["name"], tuple(node["aliases"]), node["parent"]) for node in nodes)


def judge_text(judge: Taxonomy, truth: str, text: str) -> Category | None:
    """Category of a response; None when it holds no answer."""
    answer = parse(text)
    return None if answer is None else judge.judge(Pair(truth, answer))


@torch.no_grad()
def outcomes(
    runner: PolicyRunner, world: World, judge: Taxonomy, pictures: Pictures, seed: int = 0, samples: int = SAMPLES
) -> list[Outcome]:
    """Responses to one picture per concept; ``pictures`` (concepts, 56, 56, 3) in the world's order."""
    was_training = runner.model.training
    runner.model.train(False)
    generator = torch.Generator(device=runner.device).manual_seed(seed)
    found: list[Outcome] = []
    for begin in range(0, len(world.concepts), _BATCH):
        concepts = world.concepts[begin : begin + _BATCH]
        pixels = patches(pictures[begin : begin + _BATCH])
        greedy = runner.texts(runner.sample(pixels, 1, None))
        sampled = runner.texts(runner.sample(pixels, samples, generator))
        for row, concept in enumerate(concepts):
            own = sampled[row * samples : (row + 1) * samples]
            found.append(
                Outcome(
                    concept.index,
                    judge_text(judge, concept.name, greedy[row]),
                    tuple(judge_text(judge, concept.name, text) for text in own),
                )
            )
    runner.model.train(was_training)
    return found


def _figures(kinds: Iterable[Category | None]) -> dict[str, Any]:
    summary = summarise(kinds)
    if summary is None:
        return {"count": 0}
    figures = asdict(summary)
    figures["rates"] = {name: round(share, 4) for name, share in summary.rates.items()}
    rounded = {
        name: round(figures[name], 4) for name in ("correctness", "specificity", "hm") if figures[name] is not None
    }
    return {**figures, **rounded}


def _modes(chosen: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "greedy": _figures(outcome.greedy for outcome in chosen),
        "sampled": _figures(kind for outcome in chosen for kind in outcome.sampled),
        f"best_of_{SAMPLES}": _figures(outcome.best for outcome in chosen),
    }


def report(world: World, found: Sequence[Outcome]) -> dict[str, Any]:
    """Metrics in domain and out of domain, each also per stratum, and per domain."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in found:
        concept = world.concepts[outcome.concept]
        side = "in_domain" if concept.domain == TRAIN_DOMAIN else "out_of_domain"
        for name in (side, f"{side}/{concept.stratum}", concept.domain):
            groups.setdefault(name, []).append(outcome)
    sides = [f"{side}{tail}" for side in ("in_domain", "out_of_domain") for tail in _TAILS]
    names = [*sides, *sorted(set(groups) - set(sides))]
    return {name: _modes(groups[name]) for name in names if name in groups}


_TAILS = ("", *(f"/{stratum}" for stratum in Stratum))


def table(figures: dict[str, Any], names: Iterable[str] = ("in_domain", "out_of_domain")) -> str:
    """A small text table of a ``report``."""
    lines = ["set                    mode        correct  specific     HM   wrong abstain generic   less   spec unpars"]
    for name in names:
        for mode, row in figures[name].items():
            rates = row["rates"]
            shares = [rates[key] for key in ("wrong", "abstain", "generic", "less_specific", "specific", "unparsable")]
            specificity = row["specificity"] or 0.0
            lines.append(
                f"{name:22} {mode:11} {row['correctness']:7.3f} {specificity:9.3f} {row['hm']:6.3f} "
                + " ".join(f"{share:7.3f}" for share in shares)
            )
    return "\n".join(lines)
