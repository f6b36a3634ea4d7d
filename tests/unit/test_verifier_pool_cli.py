"""What the command for pools on Ray Serve says before Ray comes into play. The rest runs against real Ray Serve."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from speciarl.errors import ConfigError
from speciarl.verifier_server import parse_config, ray_serve
from speciarl.verifier_server.pool_cli import app, pooled_judge

GOOD = "model: org/judge\nname: judge\npool: {replicas: 2, max_replicas: 4}\n"


def test_a_judge_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "judge.yaml").write_text(GOOD)
    judge = pooled_judge(str(tmp_path / "judge.yaml"), ["retries=3"])
    assert judge.pool is not None
    assert (judge.model, judge.pool.replicas, judge.pool.max_replicas, judge.retries) == ("org/judge", 2, 4, 3)


def test_a_judge_by_name() -> None:
    assert pooled_judge("laptop").name == "laptop"
    with pytest.raises(ConfigError, match="has no `pool`"):
        pooled_judge("taxonomy")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read (No such file or directory); check the path"),
        (b"\xff\xfe\x00", "is no text in UTF-8"),
        (b"{", "is no YAML"),
        (b"- a", "is no mapping; it needs the keys of one judge"),
        (b"model: m\nendpoints: [http://h]", "judge 'judge' has no `pool`, so there is nothing to start"),
        (b"model: m\npool: {replicas: 0}", "judge.yaml.pool.replicas: "),
        (b"model: m\npool: {max_replicas: 1, replicas: 2}", "`max_replicas` (1) is below `replicas` (2)"),
    ],
)
def test_a_file_that_is_none_is_refused_in_one_line(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "judge.yaml"
    if content is not None:
        path.write_bytes(content)
    ran = CliRunner().invoke(app, ["up", str(path)])
    assert ran.exit_code == 2
    assert ran.stderr.startswith("error: ")
    assert said in ran.stderr
    assert str(path) in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_no_cluster_at_an_address_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "judge.yaml").write_text(GOOD)
    for arguments in (["up", str(tmp_path / "judge.yaml")], ["down", "judge"], ["status"]):
        ran = CliRunner().invoke(app, [*arguments, "--address", "127.0.0.1:1"])
        assert ran.exit_code == 2
        assert "Ray cannot be reached at '127.0.0.1:1'" in ran.stderr
        assert "start it with `ray start --head`" in ran.stderr


def test_an_application_needs_a_pool_and_a_name_for_its_url(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no `pool` to start"):
        ray_serve.judge_application(parse_config({"model": "m", "endpoints": ["http://h"]}), tmp_path, {})
    with pytest.raises(ConfigError, match="'a judge' cannot be part of a URL"):
        ray_serve.deploy(parse_config({"model": "m", "name": "a judge", "pool": {}}), tmp_path)


@pytest.mark.parametrize(
    ("status", "messages", "said"),
    [
        ("RUNNING", ["all is well"], ""),
        ("DEPLOYING", [], ""),
        ("UNHEALTHY", ["", "Traceback:\n  File x\nVerifierStartError: server is dead\n  see the log"],
         "VerifierStartError: server is dead"),
        ("DEPLOYING", ["waiting for room\n\n"], "waiting for room"),
    ],
)  # fmt: skip
def test_what_serve_says_in_one_line(status: str, messages: list[str], said: str) -> None:
    deployments = {str(index): SimpleNamespace(message=message) for index, message in enumerate(messages)}
    serve_app: Any = SimpleNamespace(status=SimpleNamespace(value=status), message="", deployments=deployments)
    assert ray_serve._problem(serve_app) == said
