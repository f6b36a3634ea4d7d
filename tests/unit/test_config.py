"""The run's own configuration node: every mistake is named with its key."""

import pytest
from omegaconf import OmegaConf

from speciarl.config import load, parse
from speciarl.errors import ConfigError

JUDGE = {"model": "m", "endpoints": ["http://localhost:8000/v1"]}


def test_defaults() -> None:
    settings = parse({"verifier": JUDGE})
    assert settings.reward.name == "dynamic"
    assert settings.verifier.served_name == "m"


@pytest.mark.parametrize(
    ("node", "key", "hint"),
    [
        ({"verifier": {**JUDGE, "max_concurency": 3}}, "verifier.max_concurency", "did you mean max_concurrency"),
        ({"verifier": {"model": "m", "pool": {"replica": 2}}}, "verifier.pool.replica", "did you mean replicas"),
        ({"verifier": JUDGE, "zzz": 1}, "zzz", "known: algorithm, data_hint, reward, training, verifier"),
        ({"verifier": JUDGE, "reward": {"quorum": 0}}, "reward.quorum", "greater than or equal to 1"),
        ({"verifier": {"model": "m"}}, "verifier", "give either `endpoints` or `pool` (neither is given)"),
    ],
)
def test_a_mistake_is_named(node: dict[str, object], key: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(node)
    assert f"speciarl.{key}: " in str(caught.value)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_without_the_recipe_is_told_so() -> None:
    with pytest.raises(ConfigError, match=r"\+recipe=speciarl"):
        load(OmegaConf.create({"trainer": {}}))


def test_a_key_left_open_is_named() -> None:
    config = OmegaConf.create({"speciarl": {"verifier": {"model": "???", "endpoints": ["http://h"]}}})
    with pytest.raises(ConfigError, match=r"speciarl\.verifier\.model"):
        load(config)
