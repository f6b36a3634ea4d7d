"""Rollout samples: a few rollouts of a training step, kept whole for a person to look at."""

import io
from dataclasses import dataclass, field
from typing import Any

from speciarl.metrics import key
from speciarl.reward import Member
from speciarl.reward.barrier import GroupOutcome
from speciarl.verdict import Unscorable, Verdict

THUMBNAIL_PIXELS = 128
"""Longest side. A picture is to be recognised, not studied: at 8 groups a page has some 50 kB of them."""
RESPONSE_CHARS = 600
"""What is kept of each end of a long response."""


@dataclass(frozen=True, slots=True)
class SampledRollout:
    """One rollout; all texts are the model's or the judge's, and to be trusted in nothing."""

    session: int
    response: str
    answer: str | None
    """None when the response holds none."""
    category: str
    """Metric key of the category, ``unparsable`` or ``unscorable``."""
    note: str
    """Where the verdict came from, or why there is none."""
    margin: float | None
    reward: float | None
    """None when the rollout left no trajectory."""


@dataclass(frozen=True, slots=True)
class SampledGroup:
    """One prompt and its rollouts."""

    step: int
    ground_truth: str
    data_source: str
    sample_id: str
    reference: str
    """Metric key of the group's c*, ``none`` if nothing was scored."""
    thumbnail: bytes | None
    """JPEG; None when the prompt has no image that we know of."""
    rollouts: tuple[SampledRollout, ...]


@dataclass(slots=True)
class _Note:
    response: str
    answer: str | None
    member: Member
    seen: Member | None


@dataclass(slots=True)
class GroupDraft:
    """What is known of a group that is to be sampled, while its rollouts come in."""

    step: int
    ground_truth: str
    data_source: str
    sample_id: str
    _notes: dict[int, _Note] = field(default_factory=dict)

    def note(self, session: int, response: str, answer: str | None, member: Member, seen: Member | None = None) -> None:
        """A rollout was judged; `seen` is what the reward sees of it, where verdict noise has moved it."""
        self._notes[session] = _Note(clipped(response), answer if answer is None else clipped(answer), member, seen)

    def finish(self, outcome: GroupOutcome, image: Any | None) -> SampledGroup:
        """The group with its rewards. `image`: a PIL image or None."""
        rollouts = tuple(
            _rollout(session, note, outcome.rewards[session]) for session, note in sorted(self._notes.items())
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
    """Keeps the first few groups of every n-th step, and never more than two steps' worth."""

    def __init__(self, every: int, per_step: int) -> None:
        """`every`: steps from one sampled step to the next, 0 for none. `per_step`: groups of a sampled step."""
        self._every = every
        self._per_step = per_step
        self._begun: dict[int, int] = {}
        self._kept: list[SampledGroup] = []

    def draft(self, step: int, ground_truth: str, data_source: str, sample_id: str) -> GroupDraft | None:
        """A draft if this group is to be sampled, which takes one of the step's places."""
        if not self._every or step < 1 or step % self._every or self._begun.get(step, 0) >= self._per_step:
            return None
        self._begun = {step: self._begun.get(step, 0) + 1}  # steps do not come back
        return GroupDraft(step, ground_truth, data_source, sample_id)

    def keep(self, group: SampledGroup) -> None:
        """A drafted group is finished."""
        self._kept = [*self._kept, group][-2 * self._per_step :]

    def drain(self) -> list[SampledGroup]:
        """The groups kept since the last call."""
        drained, self._kept = self._kept, []
        return drained


def thumbnail(image: Any) -> bytes:
    """A small JPEG of a PIL image, which stays as it is."""
    small = image.convert("RGB")  # a copy, even of an RGB image
    small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def clipped(text: str) -> str:
    """The text, or its two ends if it is long."""
    if len(text) <= 2 * RESPONSE_CHARS:
        return text
    return f"{text[:RESPONSE_CHARS]} […] {text[-RESPONSE_CHARS:]}"


def _rollout(session: int, note: _Note, reward: float | None) -> SampledRollout:
    member = note.member
    if isinstance(member, Verdict):
        category, remark, margin = key(member.category), member.source.value, member.margin
        if isinstance(note.seen, Verdict) and note.seen.category is not member.category:
            remark += f"; moved to {note.seen.category.label} by noise"
    elif isinstance(member, Unscorable):
        category, remark, margin = "unscorable", clipped(f"{member.reason}: {member.detail}"), None
    else:
        category, remark, margin = key(None), "no answer in the response", None
    return SampledRollout(session, note.response, note.answer, category, remark, margin, reward)
