"""Looking around while veRL's replay buffer waits."""

import pytest
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

from speciarl.training.trainer.poll_hook import PollHook


@pytest.mark.parametrize("kind", [ReplayBuffer, ReplayBufferAsync])
def test_a_buffer_that_waits_looks_around_now_and_then(kind: type) -> None:
    looks = []
    buffer = kind("sync", {}, 1, "drop", {}, poll_interval=0.0)
    assert PollHook(lambda: looks.append(1), interval_s=3600).install(buffer) is buffer
    for _ in range(3):
        buffer._wait_for_next_poll("train", 0.0)
    assert looks == [1]


def test_what_a_look_raises_ends_the_wait() -> None:
    def look() -> None:
        raise RuntimeError("the worker died")

    buffer = PollHook(look).install(ReplayBuffer("sync", {}, 1, "drop", {}, poll_interval=0.0))
    for _ in range(2):  # the next wait looks again at once
        with pytest.raises(RuntimeError, match="the worker died"):
            buffer._wait_for_next_poll("train", 0.0)
