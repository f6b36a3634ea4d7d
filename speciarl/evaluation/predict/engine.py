"""Engine protocol: whatever answers questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from speciarl.evaluation.predict.answer import Answer
from speciarl.evaluation.predict.question import Question
from speciarl.evaluation.predict.sampling import Sampling

if TYPE_CHECKING:
    from PIL.Image import Image


class Engine(Protocol):
    """Answers questions. Bound to the event loop in which it was started."""

    @property
    def setup(self) -> Mapping[str, Any]:
        """All of model and engine that an answer depends on, as JSON values: content, never names, paths, ports or
        counts of workers."""

    @property
    def together(self) -> bool:
        """Whether one request makes several answers; else each is asked for, kept and lost by itself."""

    async def start(self) -> None:
        """Load the model; raises a SpeciaRLError in one line when that fails."""

    async def answer(
        self, question: Question, images: Sequence[Image], sampling: Sampling, seeds: Sequence[int | None]
    ) -> list[Answer]:
        """Answers to one question, one for each seed: consecutive ones, or a single None where greedy.

        Raises QuestionFailed when this question cannot be answered, and EngineDied when none can be any more.
        """

    async def aclose(self) -> None:
        """Release everything. Safe to call twice."""
