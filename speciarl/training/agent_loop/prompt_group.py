"""Prompt group: a prompt whose rollouts are under way in this worker."""

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
    """What its rollouts share."""

    uid: str
    """veRL's name of the prompt in this step."""
    barrier: RewardBarrier
    quorum: int
    """1 in validation: there a single answer is a result."""
    ground_truth: str
    data_source: str
    extra_info: Mapping[str, Any]
    validate: bool
    step: int
    """Global step for which the prompt was sampled."""
    identity: str
    """Names the prompt in the seeds of its rollouts: the same when a run is repeated."""
    rollout: GroupRollout | None
    """Shared by all rollouts of the prompt; None when the prompt asks for another agent loop."""
    draft: GroupDraft | None
    """Gathers the group for the sample page; None for the many that are not shown."""
    late: LateScores | None
    """Scores that come after their trajectories are stored; None when every reward is final before that."""

    @property
    def image(self) -> str:
        """Names the image in verdict noise."""
        return image_name(self.data_source, self.extra_info)

    def is_late(self, session: int) -> bool:
        """Whether the session's score is under way on its own, whatever becomes of the session."""
        return self.late is not None and session in self.late
