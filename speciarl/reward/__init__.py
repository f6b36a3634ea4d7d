"""Group rewards as pure functions: the judged rollouts of one image in, one reward per rollout out."""

import importlib
from collections.abc import Sequence
from typing import Protocol, cast

from speciarl.reward.member import Member, Unparsable

__all__ = ["GroupReward", "Member", "Unparsable", "load"]


class GroupReward(Protocol):
    """A pure function on a whole group. None stands for "no reward", as an unscorable member must get."""

    def __call__(self, members: Sequence[Member]) -> list[float | None]: ...


def load(name: str) -> GroupReward:
    """A group reward by name (``dynamic``, a module of this package) or import path
    (``package.module:function``).

    Raises ValueError, in one line, when there is no such function.
    """
    module_name, _, attribute = name.partition(":") if ":" in name else (f"{__name__}.{name}", "", "rewards")
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        raise ValueError(
            f"no group reward {name!r} ({error}); use 'dynamic' or an import path like 'package.module:function'"
        ) from error
    if not callable(function):
        raise ValueError(f"group reward {name!r} is no function")
    return cast(GroupReward, function)
