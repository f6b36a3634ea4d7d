"""Rewards by name and import path, and their parameters."""

from collections.abc import Sequence
from typing import Annotated

import pytest
from pydantic import Field

from speciarl.config import parse
from speciarl.errors import ConfigError
from speciarl.reward import NAMES, Member, load
from speciarl.reward.dynamic import rewards as dynamic

JUDGE = {"model": "m", "endpoints": ["http://localhost:8000/v1"]}


def plain(members: Sequence[Member]) -> list[float | None]:
    return [1.0 for _ in members]


def scaled(
    members: Sequence[Member], *, scale: Annotated[float, Field(gt=0)], shift: float = 0.5
) -> list[float | None]:
    return [scale + shift for _ in members]


def unreadable(members: Sequence[Member], *, scale: "Missing" = 1) -> list[float | None]:  # type: ignore[name-defined]  # noqa: F821
    return []


class Counting:
    """An object may be a reward, too."""

    def __call__(self, members: Sequence[Member], *, times: int = 2) -> list[float | None]:
        return [float(times)] * len(members)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> str:
    """An import path of this module, whatever pytest calls it."""
    import sys
    import types

    module = types.ModuleType("a_users_rewards")
    for name, value in {"plain": plain, "scaled": scaled, "unreadable": unreadable, "counting": Counting()}.items():
        setattr(module, name, value)
    monkeypatch.setitem(sys.modules, "a_users_rewards", module)
    return "a_users_rewards"


def test_every_name_loads() -> None:
    for name in NAMES:
        assert callable(load(name))
    assert load("dynamic") is dynamic


def test_a_plain_function_is_a_reward(here: str) -> None:
    assert load(f"{here}:plain")([]) == []
    assert load(f"{here}:plain") is plain


def test_parameters_are_checked_and_bound(here: str) -> None:
    members: list[Member] = [object()]  # type: ignore[list-item]
    assert load(f"{here}:scaled", {"scale": 2})(members) == [2.5]
    assert load(f"{here}:scaled", {"scale": "3", "shift": 0})(members) == [3]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, r"params\.scale: Field required"),
        ({"scale": 0}, r"params\.scale: Input should be greater than 0"),
        ({"scale": "much"}, r"params\.scale: Input should be a valid number"),
        ({"scale": 1, "scael": 2}, r"params\.scael: there is no such parameter .*parameters: scale, shift"),
    ],
)
def test_a_wrong_parameter_is_named_in_one_line(here: str, params: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        load(f"{here}:scaled", params)
    assert "\n" not in str(caught.value)


def test_an_object_with_a_call_is_a_reward(here: str) -> None:
    members: list[Member] = [object()]  # type: ignore[list-item]
    assert load(f"{here}:counting")(members) == [2]
    assert load(f"{here}:counting", {"times": 5})(members) == [5]
    with pytest.raises(ValueError, match=r"params\.times: Input should be a valid integer"):
        load(f"{here}:counting", {"times": "x"})


def test_a_class_and_unreadable_annotations_are_refused_in_one_line(here: str) -> None:
    with pytest.raises(ValueError, match="is no function"):
        load("speciarl.verdict:Verdict")
    with pytest.raises(ValueError, match=r"^name: the annotations of .* cannot be read \(name 'Missing'"):
        load(f"{here}:unreadable", {"scale": 1})


def test_a_reward_without_parameters_takes_none() -> None:
    with pytest.raises(ValueError, match=r"params\.speed: there is no such parameter .*it has no parameters"):
        load("binary", {"speed": 1})


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "equal to 1"), (-1, "equal to 1"), (1.5, "valid integer"), ("two", "valid integer"), (None, "valid integer")],
)
def test_a_support_that_cannot_be_is_named_in_one_line(value: object, said: str) -> None:
    with pytest.raises(ValueError, match=rf"^params\.support: .*{said}.*parameters: support") as caught:
        load("dynamic", {"support": value})
    assert "\n" not in str(caught.value)


def test_only_the_dynamic_reward_asks_for_support() -> None:
    for name in set(NAMES) - {"dynamic"}:
        with pytest.raises(ValueError, match=r"params\.support: there is no such parameter"):
            load(name, {"support": 2})


@pytest.mark.parametrize(
    ("node", "key"),
    [
        ({"noise": {"probability": 1.5}}, "noise.probability"),
        ({"noise": {"probabilty": 0.5}}, "noise.probabilty: there is no such key; did you mean probability"),
        ({"overlong": {"buffer_share": 2}}, "overlong.buffer_share"),
        ({"overlong": {"bufer_share": 0.2}}, "overlong.bufer_share: there is no such key; did you mean buffer_share"),
        ({"params": [1]}, "params"),
    ],
)
def test_a_mistake_in_the_configuration_is_named(node: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse({"verifier": JUDGE, "reward": node})
    assert f"speciarl.reward.{key}" in str(caught.value)
