"""Only time in which nothing generates counts as waiting for the verifier."""

from speciarl.training.wait_clock import Phase, WaitClock


class FakeTime:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_overlapping_judgement_costs_nothing_and_the_tail_counts() -> None:
    time = FakeTime()
    clock = WaitClock(time)
    clock.enter("a", Phase.GENERATING)
    clock.enter("b", Phase.GENERATING)
    time.seconds = 2
    clock.enter("a", Phase.JUDGING)
    time.seconds = 5  # a was judged while b generated
    clock.enter("b", Phase.JUDGING)
    time.seconds = 9  # both wait
    clock.leave("a")
    time.seconds = 10
    clock.leave("b")
    time.seconds = 50  # idle
    assert clock.drain() == 5
    assert clock.drain() == 0


def test_drain_splits_a_wait_that_goes_on() -> None:
    time = FakeTime()
    clock = WaitClock(time)
    clock.enter("a", Phase.JUDGING)
    time.seconds = 3
    assert clock.drain() == 3
    time.seconds = 4
    clock.leave("a")
    clock.leave("a")  # leaving twice is harmless
    assert clock.drain() == 1
