"""Only time in which nothing generates counts as waiting for the verifier."""

from hypothesis import given
from hypothesis import strategies as st

from speciarl.training.observability.stall_timer import Phase, WaitClock, Waits


class FakeTime:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_overlapping_judgement_costs_nothing_and_the_tail_counts() -> None:
    time = FakeTime()
    clock = WaitClock(time)
    clock.begin("a", Phase.GENERATING)
    clock.begin("b", Phase.GENERATING)
    time.seconds = 2
    clock.begin("a", Phase.JUDGING)
    time.seconds = 4  # a was judged while b generated
    clock.begin("a", Phase.JUDGED)
    time.seconds = 5
    clock.begin("b", Phase.JUDGING)
    time.seconds = 10  # both wait for b's verdict
    clock.end("a")
    clock.end("b")
    time.seconds = 50  # idle
    assert clock.drain() == Waits(waited_s=5, judging_s=7)
    assert clock.drain() == Waits()


def test_drain_splits_a_wait_that_goes_on() -> None:
    time = FakeTime()
    clock = WaitClock(time)
    clock.begin("a", Phase.JUDGING)
    time.seconds = 3
    assert clock.drain() == Waits(3, 3)
    time.seconds = 4
    clock.end("a")
    clock.end("a")  # leaving twice is harmless
    assert clock.drain() == Waits(1, 1)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([*Phase, None]), st.integers(0, 5))))
def test_the_sums_are_those_of_a_second_by_second_account(events: list[tuple[int, Phase | None, int]]) -> None:
    time, phases, expected = FakeTime(), {}, [0, 0]
    clock = WaitClock(time)
    for rollout, phase, seconds in events:
        if phase is None:
            clock.end(rollout)
            phases.pop(rollout, None)
        else:
            clock.begin(rollout, phase)
            phases[rollout] = phase
        time.seconds += seconds
        if Phase.JUDGING in phases.values():
            expected[1] += seconds
            expected[0] += seconds * (Phase.GENERATING not in phases.values())
    assert clock.drain() == Waits(*expected)
