"""Prompt group: a prompt whose rollouts are in flight in this worker."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from speciarl.reward.barrier import RewardBarrier
from speciarl.training.agent_loop.late_scores import LateScores
from speciarl.training.agent_loop.shared_prompt import GroupRollout
from speciarl.training.observability.rollout_samples import GroupDraft
from speciarl.training.reward_info import image_name


@dataclass(frozen=True, slots=True)
class OpenGroup:
    """State that the rollouts of one prompt share, from its dispatch to the end of its last session."""

    uid: str
    """veRL's id of the prompt; the beginning of its trajectories' keys in TransferQueue."""
    barrier: RewardBarrier
    quorum: int
    """Fewest scored rollouts for rewards to count; 1 in validation, where each answer is a result by itself."""
    ground_truth: str
    data_source: str
    extra_info: Mapping[str, Any]
    validate: bool
    step: int
    """Global step for which the prompt was sampled."""
    identity: str
    """The prompt's name in the seeds of its rollouts: the same when a run is repeated."""
    rollout: GroupRollout | None
    """Agent loop that all rollouts share; None when the prompt asks for another one than veRL's single turn."""
    draft: GroupDraft | None
    """Draft of the group for the sample page; None for the many that are not shown."""
    late: LateScores | None
    """Scores that come after their trajectories are stored; None when every reward is final before that."""

    @property
    def image(self) -> str:
        """The image's name in the draws of verdict noise."""
        return image_name(self.data_source, self.extra_info)

    def is_late(self, session: int) -> bool:
        """Whether a task of its own scores the session, whether or not the session has ended."""
        return self.late is not None and session in self.late
