"""How long the verifier was silent while it was asked."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from speciarl.training.observability.stall_timer import SilenceClock
from speciarl.verdict import Source


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
    clock.begin_wait()
    time.now += 3
    assert clock.seconds() == 3.0
    clock.end_wait(None)
    time.now += 1000  # a long optimisation step
    assert clock.seconds() == 3.0
    clock.begin_wait()
    clock.begin_wait()
    time.now += 2
    assert clock.seconds() == 5.0
    clock.end_wait(Source.LIVE)
    time.now += 1
    assert clock.seconds() == 1.0  # the other one still waits
    clock.end_wait(Source.LIVE)
    assert clock.seconds() is None


def test_known_verdicts_do_not_hide_that_the_judge_is_gone() -> None:
    time = FakeTime()
    clock = SilenceClock(time)
    for _ in range(3):
        clock.begin_wait()
        clock.begin_wait()
        clock.end_wait(Source.STORE)
        time.now += 8
        clock.end_wait(None)
        clock.begin_wait()
        clock.end_wait(Source.MEMORY)
    assert clock.seconds() == 24.0
    clock.begin_wait()
    clock.end_wait(Source.LIVE)
    assert clock.seconds() is None


def test_looking_up_what_is_known_adds_nothing_to_a_silence() -> None:
    time = FakeTime()
    clock = SilenceClock(time)
    clock.begin_wait()
    time.now += 8
    clock.end_wait(None)
    for _ in range(100):
        clock.begin_wait()
        time.now += 1
        clock.end_wait(Source.STORE)
    assert clock.seconds() == 8.0


def test_known_verdicts_alone_are_no_silence() -> None:
    time = FakeTime()
    clock = SilenceClock(time)
    for source in (Source.STORE, Source.MEMORY, Source.SHORTCUT) * 100:
        clock.begin_wait()
        time.now += 1
        clock.end_wait(source)
        assert clock.seconds() is None


@given(st.lists(st.tuples(st.sampled_from(["ask", "none", *Source]), st.floats(0, 10)), max_size=40))
def test_silence_is_never_longer_than_the_time_since_the_judges_last_verdict(
    events: Sequence[tuple[str | Source, float]],
) -> None:
    time, pending, last = FakeTime(), 0, 100.0
    clock = SilenceClock(time)
    for kind, pause in events:
        time.now += pause
        if kind == "ask":
            clock.begin_wait()
            pending += 1
        elif pending:
            clock.end_wait(kind if isinstance(kind, Source) else None)
            pending -= 1
            last = time.now if kind in (Source.LIVE, Source.TAXONOMY) else last
        silent = clock.seconds()
        assert silent is None or -1e-9 <= silent <= time.now - last + 1e-9
        assert (silent is not None) or pending == 0
