"""Rollout samples: whole groups of a few training steps, kept for the sample page."""

import io
from dataclasses import dataclass, field
from typing import Any

from speciarl.metrics import key
from speciarl.reward import Member
from speciarl.reward.barrier import GroupOutcome
from speciarl.verdict import Unscorable, Verdict

THUMBNAIL_PIXELS = 128
"""Longest side of a thumbnail: enough to recognise the picture, and 8 groups take some 50 kB of a page."""
RESPONSE_CHARS = 600
"""Characters kept of each end of a long text."""


@dataclass(frozen=True, slots=True)
class SampledRollout:
    """One rollout as shown. Its texts come from the model or the judge and are untrusted: escape them."""

    session: int
    response: str
    answer: str | None
    """None when the response holds none."""
    category: str
    """Metric key of the category, ``unparsable`` or ``unscorable``."""
    provenance: str
    """Where the verdict came from and whether noise moved it, or why there is none."""
    margin: float | None
    reward: float | None
    """None when the rollout left no trajectory."""


@dataclass(frozen=True, slots=True)
class SampledGroup:
    """One prompt and its rollouts, as shown."""

    step: int
    ground_truth: str
    data_source: str
    sample_id: str
    reference: str
    """Metric key of the group's c*, ``none`` if nothing was scored."""
    thumbnail: bytes | None
    """JPEG bytes; None when the prompt has no image, or an agent loop that shares none."""
    rollouts: tuple[SampledRollout, ...]


@dataclass(slots=True)
class _Record:
    response: str
    answer: str | None
    member: Member
    seen: Member | None


@dataclass(slots=True)
class GroupDraft:
    """Draft of a group that is to be shown, filled in while its rollouts are judged."""

    step: int
    ground_truth: str
    data_source: str
    sample_id: str
    _records: dict[int, _Record] = field(default_factory=dict)

    def record(
        self, session: int, response: str, answer: str | None, member: Member, seen: Member | None = None
    ) -> None:
        """Record a judged rollout; `seen` is the member as the reward sees it, which verdict noise may have moved."""
        self._records[session] = _Record(clipped(response), answer if answer is None else clipped(answer), member, seen)

    def finish(self, outcome: GroupOutcome, image: Any | None) -> SampledGroup:
        """The group with its rewards, ready to be shown. `image`: a PIL image or None."""
        rollouts = tuple(
            _rollout(session, record, outcome.rewards[session]) for session, record in sorted(self._records.items())
        )
        return SampledGroup(
            self.step,
            clipped(self.ground_truth),
            self.data_source,
            self.sample_id,
            "none" if outcome.reference is None else key(outcome.reference),
            None if image is None else thumbnail(image),
            rollouts,
        )


class SampleBook:
    """Sample book of one worker: the first few groups of every n-th step, and never more than two steps' worth."""

    def __init__(self, every: int, per_step: int) -> None:
        """`every`: steps from one sampled step to the next, 0 for none. `per_step`: groups of a sampled step."""
        self._every = every
        self._per_step = per_step
        self._begun: dict[int, int] = {}
        self._kept: list[SampledGroup] = []

    def draft(self, step: int, ground_truth: str, data_source: str, sample_id: str) -> GroupDraft | None:
        """A draft, which takes one of the step's places, if this group is to be sampled; else None."""
        if not self._every or step < 1 or step % self._every or self._begun.get(step, 0) >= self._per_step:
            return None
        self._begun = {step: self._begun.get(step, 0) + 1}  # one entry: steps only go forward
        return GroupDraft(step, ground_truth, data_source, sample_id)

    def add(self, group: SampledGroup) -> None:
        """Keep a finished group until the next drain; the oldest go where nobody drains."""
        self._kept = [*self._kept, group][-2 * self._per_step :]

    def drain(self) -> list[SampledGroup]:
        """Groups kept since the last call; the book is empty then."""
        drained, self._kept = self._kept, []
        return drained


def thumbnail(image: Any) -> bytes:
    """A small JPEG of a PIL image, which is not changed."""
    small = image.convert("RGB")  # a copy, even of an RGB image
    small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def clipped(text: str) -> str:
    """The text, or its two ends where it is longer than both together."""
    if len(text) <= 2 * RESPONSE_CHARS:
        return text
    return f"{text[:RESPONSE_CHARS]} […] {text[-RESPONSE_CHARS:]}"


def _rollout(session: int, record: _Record, reward: float | None) -> SampledRollout:
    member = record.member
    if isinstance(member, Verdict):
        category, provenance, margin = key(member.category), member.source.value, member.margin
        if isinstance(record.seen, Verdict) and record.seen.category is not member.category:
            provenance += f"; moved to {record.seen.category.label} by noise"
    elif isinstance(member, Unscorable):
        category, provenance, margin = "unscorable", clipped(f"{member.reason}: {member.detail}"), None
    else:
        category, provenance, margin = key(None), "no answer in the response", None
    return SampledRollout(session, record.response, record.answer, category, provenance, margin, reward)
