"""The one line that a run ends with."""

import pytest
from ray.exceptions import RayTaskError

from speciarl.errors import SpeciaRLError, VerifierOutage
from speciarl.training.preflight.checks import own_error


def from_ray(error: Exception) -> Exception:
    """As `ray.get` raises what an actor raised: an instance of the error's class too."""
    wrapped = RayTaskError("run", "a traceback\nof many lines", error)
    return wrapped.as_instanceof_cause()


def test_our_error_is_found_inside_rays_wrapper() -> None:
    seen = from_ray(VerifierOutage("step 3, in one line"))
    assert isinstance(seen, VerifierOutage)
    assert str(own_error(seen)) == "step 3, in one line"


def test_our_error_is_found_behind_others() -> None:
    error = RuntimeError("veRL's")
    error.__cause__ = VerifierOutage("at the root")
    assert str(own_error(from_ray(error))) == "at the root"


@pytest.mark.parametrize("error", [ValueError("foreign"), from_ray(ValueError("foreign")), None])
def test_foreign_errors_are_left_to_hydra(error: object) -> None:
    assert own_error(error) is None


def test_a_plain_one_is_itself() -> None:
    error = SpeciaRLError("x")
    assert own_error(error) is error
