"""Answer of a model to one question, and the failures that leave a question without one."""

import enum
from dataclasses import dataclass

from speciarl.errors import SpeciaRLError


class Failure(enum.StrEnum):
    """Why a question has no answer."""

    BROKEN_IMAGE = "broken_image"
    """An image cannot be decoded."""
    PROMPT_TOO_LONG = "prompt_too_long"
    """Prompt and image have more tokens than the model takes (``engine.max_model_len``)."""
    REFUSED = "refused"
    """The engine or the server refused the request."""
    ENGINE = "engine"
    """The engine failed at this request; another attempt may succeed."""
    TIMEOUT = "timeout"
    """The deadline passed."""

    @property
    def lasts(self) -> bool:
        """Whether another attempt with the same settings would fail in the same way."""
        return self in (Failure.BROKEN_IMAGE, Failure.PROMPT_TOO_LONG, Failure.REFUSED)


class QuestionFailed(Exception):
    """A question has no answer; carries the failure and one line for a person."""

    def __init__(self, failure: Failure, detail: str) -> None:
        super().__init__(f"{failure}: {detail}")
        self.failure = failure
        self.detail = detail


class EngineDied(SpeciaRLError):
    """The engine cannot answer any more; what it has answered is kept."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, as it is kept."""

    seed: int | None
    """Seed with which it can be made again alone; None where greedy."""
    text: str
    """The whole response."""
    tokens: int
    """Length of the response."""
    prompt_tokens: int
    """Length of the prompt, images included."""
    finish_reason: str
    """``stop``, or ``length`` where it was cut off."""
    image_width: int
    """Of the first image, in pixels, as handed to the model's processor."""
    image_height: int
