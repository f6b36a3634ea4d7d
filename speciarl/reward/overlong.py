"""Overlong penalty (soft overlong punishment of DAPO): a term that is added to the group reward."""

from pydantic import BaseModel, ConfigDict, Field


class Overlong(BaseModel):
    """Settings of the penalty: it grows linearly over a buffer of tokens before the length limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    buffer_share: float = Field(default=0.25, gt=0, le=1)
    """Length of the buffer as a share of ``data.max_response_length`` (paper: 512 of 2048 tokens). A share, so that it
    fits any limit."""
    penalty: float = Field(default=1.0, gt=0)
    """Penalty of a response that reaches the limit."""

    def term(self, tokens: int, limit: int) -> float:
        """The term to add to the reward of a response of so many tokens, in [-penalty, 0].

        0 up to the beginning of the buffer, then linear in the tokens beyond.
        """
        buffer = self.buffer_share * limit
        beyond = min(max(tokens - (limit - buffer), 0.0), buffer)
        return -self.penalty * beyond / buffer if beyond else 0.0
