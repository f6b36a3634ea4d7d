"""Third parties' switches are set in one place, and never over a user's own choice."""

from hypothesis import given
from hypothesis import strategies as st

from speciarl.cpu import environment

NAMES = sorted(environment.variables())


@given(st.dictionaries(st.sampled_from([*NAMES, "PATH", "HOME"]), st.text(max_size=5)))
def test_apply_adds_what_is_missing_and_keeps_what_is_set(present: dict[str, str]) -> None:
    environ = dict(present)
    added = environment.apply(environ)
    assert environ == {**environment.variables(), **present}
    assert added == {name: value for name, value in environment.variables().items() if name not in present}
    assert environment.apply(environ) == {}


def test_variables_are_a_copy() -> None:
    environment.variables()["OMP_NUM_THREADS"] = "99"
    assert environment.variables()["OMP_NUM_THREADS"] == "1"


def test_models_may_still_be_downloaded() -> None:
    assert not [name for name in NAMES if "OFFLINE" in name]
