"""Group rewards: pure functions from the judged rollouts of one image to one reward per rollout. docs/rewards.md."""

import functools
import importlib
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import pydantic

from speciarl.reward import margin_aware
from speciarl.reward.member import Member, Unparsable

__all__ = ["NAMES", "GroupReward", "Member", "Unparsable", "load", "weighs_probabilities"]

NAMES: Mapping[str, str] = {
    "dynamic": "speciarl.reward.dynamic:rewards",
    "dynamic_single": "speciarl.reward.dynamic:single",
    "binary": "speciarl.reward.static:binary",
    "graded_1": "speciarl.reward.static:graded_1",
    "graded_2": "speciarl.reward.static:graded_2",
    "graded_3": "speciarl.reward.static:graded_3",
    "margin_aware": "speciarl.reward.margin_aware:rewards",
}
"""Import path of each built-in reward, by name. The last one is an experiment that is not in the paper."""


class GroupReward(Protocol):
    """A reward function on a whole group: one value per member, in their order; None, no reward, where unscorable."""

    def __call__(self, members: Sequence[Member]) -> list[float | None]: ...


def load(name: str, params: Mapping[str, Any] | None = None) -> GroupReward:
    """A group reward by name (see `NAMES`) or import path (``package.module:function``).

    Keyword-only arguments of the function are its parameters: they are checked against their annotations and bound.

    Raises ValueError, in one line that begins with the key under ``speciarl.reward``, when there is no such function
    or a parameter is wrong, missing or unknown.
    """
    module_name, _, attribute = NAMES.get(name, name).partition(":")
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        raise ValueError(
            f"name: no group reward {name!r} ({error}); use {', '.join(NAMES)} or an import path like "
            "'package.module:function'"
        ) from error
    if not callable(function) or isinstance(function, type):
        raise ValueError(f"name: group reward {name!r} is no function")
    bound = _bind(name, function, params or {})
    return cast(GroupReward, functools.partial(function, **bound) if bound else function)


def weighs_probabilities(reward: GroupReward) -> bool:
    """Whether a reward is computed from the judge's label probabilities, not from its labels alone."""
    return (reward.func if isinstance(reward, functools.partial) else reward) is margin_aware.rewards


def _keywords(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name: parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def _bind(name: str, function: Callable[..., Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as the function's annotations have them; those left out keep the function's defaults."""
    accepted = _keywords(function)
    # Of an object that can be called, the annotations are those of its `__call__`.
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        hints = typing.get_type_hints(target, include_extras=True) if accepted else {}
    except (NameError, TypeError) as error:
        raise ValueError(f"name: the annotations of reward {name!r} cannot be read ({error})") from error
    fields: dict[str, Any] = {
        key: (hints.get(key, Any), ... if parameter.default is parameter.empty else parameter.default)
        for key, parameter in accepted.items()
    }
    model = pydantic.create_model("Parameters", __config__=pydantic.ConfigDict(extra="forbid"), **fields)
    try:
        checked = model.model_validate(dict(params))
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        said = "there is no such parameter" if problem["type"] == "extra_forbidden" else problem["msg"]
        known = f"parameters: {', '.join(accepted)}" if accepted else "it has no parameters"
        where = ".".join(map(str, ("params", *problem["loc"])))
        raise ValueError(f"{where}: {said} (reward {name!r}; {known})") from error
    return {key: getattr(checked, key) for key in checked.model_fields_set}
