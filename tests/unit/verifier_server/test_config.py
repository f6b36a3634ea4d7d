"""Every wrong key is named, in one line, with a remedy."""

import pickle
from typing import Any

import pytest

from speciarl.errors import ConfigError
from speciarl.verifier_server.config import PoolConfig, StoreConfig, VerifierConfig, parse_config

URL = "http://localhost:8000/v1"


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, r"^verifier: `model` is missing"),
        ({"model": "m"}, r"give either `endpoints` or `pool` \(neither is given\)"),
        ({"model": "m", "endpoints": [URL], "pool": {}}, r"\(both are given\)"),
        ({"model": "m", "endpoints": ["localhost:8000"]}, r"^verifier.endpoints: 'localhost:8000' is no URL"),
        ({"model": "m", "endpoint": [URL]}, r"^verifier.endpoint: there is no such key; known keys: .*endpoints"),
        ({"model": "m", "pool": {"replica": 2}}, r"^verifier.pool.replica: there is no such key; .*replicas"),
        ({"model": "m", "pool": {"replicas": 0}}, r"^verifier.pool.replicas: .*greater than or equal to 1 \(got 0\)"),
        ({"model": "m", "endpoints": [URL], "retries": "many"}, r"^verifier.retries: .*\(got 'many'\)"),
        ({"model": "m", "endpoints": [URL], "kind": "vlm"}, r"^verifier.kind: .*'taxonomy'"),
        ({"kind": "taxonomy"}, "`taxonomy` is missing"),
        ({"kind": "taxonomy", "taxonomy": "tree.json", "pool": {}}, "`pool` is for judges with a model: leave it out"),
        ({"kind": "taxonomy", "taxonomy": "tree.json", "endpoints": [URL]}, "`endpoints` is for judges with a model"),
        ({"kind": "openai", "model": "m", "pool": {}}, "`pool` starts vLLM servers"),
        ({"kind": "openai", "model": "m", "endpoints": [URL], "decoding": "first_token"}, "kind vllm, or choice"),
        ({"model": "m", "endpoints": [URL], "decoding": "first_token", "thinking": True}, "no room for `thinking`"),
        ({"model": "m", "endpoints": [URL], "decoding": "first_token", "pairs_per_request": 2}, "judges one pair"),
        ({"model": "m", "endpoints": [URL], "pairs_per_request": 0}, r"^verifier.pairs_per_request: .*\(got 0\)"),
        ({"served_model_name": "m", "pool": {}}, "a pool needs the model to load"),
        ({"model": "m", "endpoints": [URL], "store": {}}, r"^verifier.store: `path` is missing"),
        ({"model": "m", "endpoints": [URL], "store": {"file": "x"}}, r"^verifier.store.file: .*known keys: .*path"),
        ({"model": "m", "endpoints": [URL], "store": {"path": "x", "url": "y"}}, r"`url` has no meaning"),
        ({"model": "m", "endpoints": [URL], "store": {"kind": "redis", "url": "host:1"}}, "is no Redis URL"),
        ({"service_url": "host:8100"}, r"^verifier.service_url: 'host:8100' is no URL"),
        ({"service_url": "http://host:8100", "model": "m"}, r"`model` is the service's business"),
    ],
)
def test_errors_name_the_key(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_config(mapping)
    assert "\n" not in str(caught.value)


def test_the_path_of_the_key_is_the_users() -> None:
    with pytest.raises(ConfigError, match=r"^speciarl\.verifier\.cache: "):
        parse_config({"model": "m", "endpoints": [URL], "cache": 1}, at="speciarl.verifier")


def test_every_field_is_described() -> None:
    import ast
    import inspect

    for model in (VerifierConfig, PoolConfig, StoreConfig):
        (body,) = (node.body for node in ast.parse(inspect.getsource(model)).body if isinstance(node, ast.ClassDef))
        for node, following in zip(body, [*body[1:], None], strict=True):
            if isinstance(node, ast.AnnAssign):
                described = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                assert described, ast.unparse(node)


def test_a_configuration_travels_between_processes() -> None:
    config = parse_config({"model": "m", "pool": {"engine_args": {"enforce_eager": True}}})
    assert pickle.loads(pickle.dumps(config)) == config
    assert parse_config(config.model_dump()) == config


def test_the_served_name_is_the_model_unless_given() -> None:
    assert parse_config({"model": "m", "endpoints": [URL]}).served_name == "m"
    assert parse_config({"model": "m", "served_model_name": "s", "endpoints": [URL]}).served_name == "s"


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 15),
        ({"decoding": "choice"}, 15),
        ({"pairs_per_request": 1, "thinking": False}, 15),
        ({"thinking": True}, 120),
        ({"pairs_per_request": 2}, 120),
        ({"kind": "openai"}, 120),
        ({"request_timeout_s": 7}, 7),
        ({"thinking": True, "request_timeout_s": 7}, 7),
    ],
)
def test_a_request_may_take_as_long_as_the_judge_has_to_say(changes: dict[str, Any], seconds: float) -> None:
    config = parse_config({"model": "m", "endpoints": [URL]} | changes)
    assert config.request_timeout_s == seconds
    assert parse_config(config.model_dump(exclude_unset=True)) == config


def test_a_service_may_take_long() -> None:
    assert parse_config({"service_url": URL}).request_timeout_s == 120
