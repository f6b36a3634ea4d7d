"""Judge audit: scores a judge on its golden pairs and on the anti-gaming set."""

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from speciarl.category import Category
from speciarl.errors import ConfigError
from speciarl.utils.cli_errors import one_line_errors
from speciarl.verdict import Judgement, Verdict
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.judge.attacks import gaming_set
from speciarl.verifier_server.judge.labels import Scheme
from speciarl.verifier_server.judge.probe import passes
from speciarl.verifier_server.judge.prompt import Golden, load_prompt
from speciarl.verifier_server.judge_config import judge_config
from speciarl.verifier_server.llm_verifier import LLMVerifier

_SHOWN_CHARS = 60


@dataclass(frozen=True)
class Finding:
    """One pair of the audit and its judgement."""

    golden: Golden
    judgement: Judgement

    @property
    def passed(self) -> bool:
        """Whether the category is one of those expected; False without a verdict."""
        return passes(self.golden, self.judgement)

    @property
    def rewarded(self) -> bool:
        """Whether a pair of the anti-gaming set was judged above `abstain`."""
        scored = isinstance(self.judgement, Verdict) and self.judgement.category > Category.ABSTAIN
        return self.golden.kind != "golden" and scored


@dataclass(frozen=True)
class Audit:
    """Result of an audit: all findings about one judge, golden pairs first."""

    judge: str
    prompt: str
    scheme: Scheme
    decoding: str
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The pairs that were not judged as expected."""
        return tuple(finding for finding in self.findings if not finding.passed)


async def audit(config: VerifierConfig) -> Audit:
    """Judge all golden pairs and the anti-gaming set with a running judge, without shortcuts, memory or store.

    Raises ConfigError for a verifier without a judge model, and VerifierStartError for a judge that cannot work at all.
    """
    if config.kind == "taxonomy":
        raise ConfigError(
            f"judge {config.name!r}: the taxonomy judge has no model; audit the configuration of a judge model"
        )
    verifier, prompt = without_memory(config), load_prompt(config.prompt)
    cases = (*prompt.golden, *gaming_set(prompt))
    await verifier.start()
    try:
        judgements = await asyncio.gather(*(verifier.verify(case.pair) for case in cases))
        decoding = verifier.decoding or ""
    finally:
        await verifier.aclose()
    findings = tuple(Finding(*both) for both in zip(cases, judgements, strict=True))
    return Audit(config.name, prompt.name, prompt.scheme, decoding, findings)


def without_memory(config: VerifierConfig) -> LLMVerifier:
    """The verifier of a running judge, not started: without shortcuts, memory and store, so that each pair meets the
    judge, and without a verdict on its golden pairs. Raises ConfigError for a service, which answers from its store.
    """
    if config.service_url:
        raise ConfigError(
            f"judge {config.name!r}: a service answers from its store; give the configuration of a judge model"
        )
    judge_only = {"exact_shortcut": False, "abstain_shortcut": False, "cache_size": 0, "store": None, "probe": True}
    verifier = LLMVerifier(config.model_copy(update=judge_only))
    # The probe must choose the decoding as in a run, but not refuse the judge because of its verdicts.
    any_category = frozenset(Category)
    golden = tuple(replace(golden, expected=any_category) for golden in verifier.prompt.golden)
    verifier.prompt = replace(verifier.prompt, golden=golden)
    return verifier


def show(result: Audit, console: Console, failures_only: bool = False) -> None:
    """Print the findings as a table, then how many passed of each kind."""
    shown = result.failed if failures_only else result.findings
    if shown:
        table = Table("kind", "ground truth", "prediction", "expected", "got", "margin")
        for finding in shown:
            table.add_row(*_row(finding, result.scheme), style=None if finding.passed else "red")
        console.print(table)
    kinds = dict.fromkeys(finding.golden.kind for finding in result.findings)
    counts = Table("kind", "passed", "of")
    for kind in kinds:
        of_kind = [finding for finding in result.findings if finding.golden.kind == kind]
        counts.add_row(kind, str(sum(finding.passed for finding in of_kind)), str(len(of_kind)))
    console.print(counts)
    rewarded = sum(finding.rewarded for finding in result.findings)
    judge = f"judge {result.judge}, prompt {result.prompt}, {result.decoding}"
    outcome = f"{len(result.failed)} of {len(result.findings)} pairs fail; {rewarded} ways of gaming were rewarded"
    console.print(Text(f"{judge}: {outcome}", style="red" if result.failed else "green"))


def _row(finding: Finding, scheme: Scheme) -> tuple[Text, ...]:
    golden, judgement = finding.golden, finding.judgement
    prediction = " ".join(golden.pair.prediction.split())
    if len(prediction) > _SHOWN_CHARS:
        prediction = prediction[: _SHOWN_CHARS - 1] + "…"
    if isinstance(judgement, Verdict):
        got, margin = scheme.label(judgement.category), judgement.margin
    else:
        got, margin = f"unscorable: {judgement.detail}", None
    expected = " | ".join(scheme.label(category) for category in sorted(golden.expected))
    margin_text = "" if margin is None else f"{margin:.2f}"
    # Text, not str, in which rich would take brackets for markup.
    return tuple(map(Text, (golden.kind, golden.pair.ground_truth, prediction, expected, got, margin_text)))


@contextlib.contextmanager
def running(config: VerifierConfig) -> Iterator[VerifierConfig]:
    """Yield the configuration with endpoints; replicas of its `pool` run on a local Ray until the block ends."""
    if config.pool is None:
        yield config
        return
    from speciarl.verifier_server.pool.ray_runtime import ManagedPools

    with tempfile.TemporaryDirectory(prefix="speciarl-audit-") as logs:
        pools = ManagedPools(logs)
        try:
            yield pools.start(config)
        finally:
            pools.stop()


def command(
    judge: Annotated[str, typer.Argument(help="An option of recipe/verifier, or a .yaml file with one judge's keys.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="KEY=VALUE, e.g. model=NAME prompt=strict.")] = None,
    failures_only: Annotated[bool, typer.Option("--failures-only", help="List only the pairs that fail.")] = False,
) -> None:
    """Test a judge and its prompt on golden pairs and on the anti-gaming set: answers built to be rewarded for nothing.

    The exit code is 1 if a pair is not judged as expected, 2 if the judge cannot be asked.
    """
    with one_line_errors(), running(judge_config(judge, overrides or ())) as config:
        result = asyncio.run(audit(config))
    show(result, Console(), failures_only)
    if result.failed:
        raise typer.Exit(1)
