"""An optimiser that updates the policy a few times and then leaves it alone, to be named in a run's configuration."""

from collections.abc import Callable
from typing import Any

import torch

UPDATES = 2


class BriefAdamW(torch.optim.AdamW):
    """AdamW for the first updates."""

    updates = 0

    def step(self, closure: Callable[[], float] | None = None) -> Any:  # type: ignore[override]
        """Update, or do nothing."""
        self.updates += 1
        return super().step(closure) if self.updates <= UPDATES else None
