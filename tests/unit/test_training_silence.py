"""How long the verifier was silent while it was asked."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from speciarl.training.silence import SilenceClock


class FakeTime:
    """Stands still until told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_silence_counts_only_while_somebody_waits_and_a_verdict_ends_it() -> None:
    time = FakeTime()
    clock = SilenceClock(time)
    assert clock.seconds() is None
    clock.ask()
    time.now += 3
    assert clock.seconds() == 3.0
    clock.answer(verdict=False)
    time.now += 1000  # a long optimisation step
    assert clock.seconds() == 3.0
    clock.ask()
    clock.ask()
    time.now += 2
    assert clock.seconds() == 5.0
    clock.answer(verdict=True)
    time.now += 1
    assert clock.seconds() == 1.0  # the other one still waits
    clock.answer(verdict=True)
    assert clock.seconds() is None


@given(st.lists(st.tuples(st.sampled_from(["ask", "verdict", "none"]), st.floats(0, 10)), max_size=40))
def test_silence_is_never_longer_than_the_time_since_the_last_verdict(events: Sequence[tuple[str, float]]) -> None:
    time, pending, last = FakeTime(), 0, 100.0
    clock = SilenceClock(time)
    for kind, pause in events:
        time.now += pause
        if kind == "ask":
            clock.ask()
            pending += 1
        elif pending:
            clock.answer(verdict=kind == "verdict")
            pending -= 1
            last = time.now if kind == "verdict" else last
        silent = clock.seconds()
        assert silent is None or -1e-9 <= silent <= time.now - last + 1e-9
        assert (silent is not None) or pending == 0
