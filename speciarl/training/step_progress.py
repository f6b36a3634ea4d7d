"""How far the current training step got, which decides what a run that has to stop can save."""

from dataclasses import dataclass


@dataclass(slots=True)
class StepProgress:
    """Follows one training step after the other.

    A step updates the policy once, or several times in ``separate_async`` (``parameter_sync_step``), which waits for
    rollouts before each. Between its first update and its end the weights are those of no finished step.
    """

    running: bool = False
    updates: int = 0

    def begin(self) -> None:
        """A step begins."""
        self.running, self.updates = True, 0

    def updated(self) -> None:
        """The policy was updated, or is about to be."""
        self.updates += 1

    def end(self) -> None:
        """The step has ended, with the servers on its weights."""
        self.running = False

    def finished(self, step: int) -> int:
        """Number of the last finished step, when ``step`` is the current one."""
        return step - self.running

    @property
    def whole(self) -> bool:
        """Whether the weights are those of the last finished step, and may be saved as such."""
        return not (self.running and self.updates)
