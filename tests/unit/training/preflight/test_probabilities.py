"""A reward on probabilities wants a judge that gives them."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from speciarl.config import parse
from speciarl.errors import ConfigError
from speciarl.reward import NAMES, load, weighs_probabilities
from speciarl.training.preflight.probabilities import check_probabilities
from speciarl.verifier_server.verifier import Verifier

ENDPOINT = {"model": "m", "endpoints": ["http://judge:8000/v1"]}


def check(judge: dict[str, Any], gives: bool | None, name: str = "margin_aware") -> None:
    settings = parse({"verifier": judge, "reward": {"name": name}})
    verifier = None if gives is None else cast(Verifier, SimpleNamespace(gives_probabilities=gives))
    check_probabilities(settings, load(name), verifier)


def test_only_one_reward_of_ours_weighs_probabilities() -> None:
    assert [name for name in NAMES if weighs_probabilities(load(name))] == ["margin_aware"]
    assert weighs_probabilities(load("margin_aware", {"confidence": 0.7}))
    assert weighs_probabilities(load("speciarl.reward.margin_aware:rewards"))


@pytest.mark.parametrize(
    ("judge", "gives"),
    [
        (ENDPOINT, False),
        (ENDPOINT | {"kind": "openai"}, None),
        (ENDPOINT | {"decoding": "choice"}, None),
        (ENDPOINT | {"thinking": True}, None),
        (ENDPOINT | {"prompt": "many", "pairs_per_request": 4}, None),
        ({"model": "m", "pool": {}, "decoding": "choice"}, None),
        ({"name": "j", "service_url": "http://service:8100"}, False),
    ],
)
def test_a_judge_without_probabilities_is_refused_in_one_line(judge: dict[str, Any], gives: bool | None) -> None:
    with pytest.raises(ConfigError) as caught:
        check(judge, gives)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("speciarl.reward.name=margin_aware: ")
    assert "speciarl.verifier.decoding=first_token" in message
    check(judge, gives, "dynamic")


@pytest.mark.parametrize(
    ("judge", "gives"),
    [
        (ENDPOINT, True),
        (ENDPOINT, None),
        ({"model": "m", "pool": {}}, None),
        ({"kind": "taxonomy", "taxonomy": "tree.json"}, None),
        ({"name": "j", "service_url": "http://service:8100"}, None),
        ({"name": "j", "service_url": "http://service:8100"}, True),
    ],
)
def test_a_judge_that_gives_them_or_may_do_so_is_taken(judge: dict[str, Any], gives: bool | None) -> None:
    check(judge, gives)
