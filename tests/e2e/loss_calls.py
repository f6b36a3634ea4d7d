"""What `loss_spy` wrote down, and the losses of the papers computed from it in plain tensors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class LossCall:
    """One call of the policy loss in the actor. Tensors: (responses of the micro-batch, tokens)."""

    mode: str
    loss: float
    old_log_prob: Any
    log_prob: Any
    advantages: Any
    response_mask: Any

    @property
    def ratio(self) -> Any:
        """Of the new policy's probability to the old one's, per token."""
        return torch.exp((self.log_prob - self.old_log_prob).clamp(-20, 20))

    @property
    def sequence_ratio(self) -> Any:
        """Its geometric mean over each response, shape (responses, 1)."""
        logs = ((self.log_prob - self.old_log_prob) * self.response_mask).sum(1) / self.response_mask.sum(1)
        return logs.exp().unsqueeze(1)


def read(folder: Path) -> list[LossCall]:
    """All calls, in order."""
    return [LossCall(**torch.load(path)) for path in sorted(folder.glob("*.pt"))]


def clipped(call: LossCall, ratio: Any, low: float, high: float, dual: float | None) -> Any:
    """PPO's clipped loss of every token, with the dual clip of negative advantages if `dual` is given."""
    loss = torch.maximum(-call.advantages * ratio, -call.advantages * ratio.clamp(1 - low, 1 + high))
    if dual is None:
        return loss
    return torch.where(call.advantages < 0, torch.minimum(loss, -call.advantages * dual), loss)


def token_mean(call: LossCall, losses: Any) -> float:
    """GRPO as veRL has it, and DAPO."""
    return float((losses * call.response_mask).sum() / call.response_mask.sum())


def sequence_mean(call: LossCall, losses: Any) -> float:
    """GSPO: the mean over responses of the mean over their tokens."""
    per_response = (losses * call.response_mask).sum(1) / call.response_mask.sum(1)
    return float(per_response.mean())


def constant_norm(call: LossCall, losses: Any, constant: int) -> float:
    """Dr.GRPO: the mean over responses of the sum over their tokens, divided by one constant."""
    return float((losses * call.response_mask).sum(1).mean() / constant)
