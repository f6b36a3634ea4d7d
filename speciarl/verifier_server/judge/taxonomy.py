"""Taxonomy judge: computes the exact category from a hierarchy. No model, no network."""

from pathlib import Path

from speciarl.answer import normalise
from speciarl.errors import VerifierStartError
from speciarl.taxonomy import Taxonomy, TaxonomyError, UnknownConceptError
from speciarl.utils.text import shorten
from speciarl.verdict import Judgement, Pair, Reason, Source, Unscorable, Verdict
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.judge.shortcuts import judge_by_length
from speciarl.verifier_server.stats import Stats


class TaxonomyVerifier:
    """Judges pairs whose ground truth is a node of the hierarchy."""

    def __init__(self, config: VerifierConfig) -> None:
        self.config = config
        self._taxonomy: Taxonomy | None = None
        self._stats = Stats()

    async def start(self) -> None:
        """See `Verifier.start`: reads the hierarchy."""
        path = Path(self.config.taxonomy or "")
        try:
            self._taxonomy = Taxonomy.load(path)
        except OSError as error:
            raise VerifierStartError(
                f"judge {self.config.name!r}: cannot read the taxonomy {path} ({error.strerror}); "
                "prepare the data first or correct `taxonomy`"
            ) from error
        except TaxonomyError as error:
            raise VerifierStartError(f"judge {self.config.name!r}: {error}; prepare the data again") from error

    @property
    def gives_probabilities(self) -> bool:
        """See `Verifier.gives_probabilities`: a category from a hierarchy is certain."""
        return True

    async def verify(self, pair: Pair) -> Judgement:
        """See `Verifier.verify`."""
        return self.recall(pair)

    def recall(self, pair: Pair, times: int = 1) -> Judgement:
        """See `Verifier.recall`: never None, as no pair needs a judge model."""
        judgement = self._judge(pair)
        self._stats.requests += times
        self._stats.count(judgement, times)
        if isinstance(judgement, Verdict):
            self._stats.count_source(judgement.source, times)
        return judgement

    def stats(self) -> dict[str, float]:
        """See `Verifier.stats`."""
        return self._stats.as_dict() | {"in_flight": 0.0, "waiting": 0.0}

    async def aclose(self) -> None:
        """See `Verifier.aclose`."""
        self._taxonomy = None

    def _judge(self, pair: Pair) -> Judgement:
        if self._taxonomy is None:
            return Unscorable(Reason.CANCELLED, "the verifier is not running")
        normal = Pair(normalise(pair.ground_truth), normalise(pair.prediction))
        by_length = judge_by_length(normal, self.config.max_string_chars)
        if by_length is not None:
            return by_length
        try:
            category = self._taxonomy.judge(pair)
        except UnknownConceptError:
            return Unscorable(
                Reason.UNKNOWN_CONCEPT, f"ground truth {shorten(normal.ground_truth)} is not in the taxonomy"
            )
        return Verdict(category=category, margin=None, source=Source.TAXONOMY)
