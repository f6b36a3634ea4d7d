"""What the command for pools on Ray Serve says before Ray comes into play. The rest runs against real Ray Serve."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from speciarl.errors import ConfigError
from speciarl.verifier_server import parse_config
from speciarl.verifier_server.pool import cli as pool_cli
from speciarl.verifier_server.pool import serve_app
from speciarl.verifier_server.pool.cli import app, pooled_judge

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
    assert ran.stderr.startswith("speciarl: ")
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


class FakeSettings:
    """Of a service, as far as its exposure goes."""

    def __init__(self, key_file: str | None = None, open_without_key: bool = False) -> None:
        self.key_file, self.open_without_key = key_file, open_without_key


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts on which something was deployed, instead of Ray Serve."""
    hosts: list[str] = []

    def fake_run(_: Any, __: str, ___: float, options: serve_app.ServeOptions) -> str:
        hosts.append(options.host)
        return "http://deployed"

    monkeypatch.setattr(serve_app, "_run", fake_run)
    monkeypatch.setattr(serve_app, "judge_application", lambda *_: None)
    monkeypatch.setattr(serve_app, "service_application", lambda *_: None)
    monkeypatch.setattr(pool_cli, "_connect", lambda _: None)
    return hosts


def test_a_pool_that_others_reach_needs_the_word_of_the_user(tmp_path: Path, deployed: list[str]) -> None:
    (tmp_path / "judge.yaml").write_text(GOOD)
    up = ["up", str(tmp_path / "judge.yaml")]
    for host in ("0.0.0.0", "::", "10.0.0.1"):
        refused = CliRunner().invoke(app, [*up, "--host", host])
        assert refused.exit_code == 2
        assert f"`host` {host} can be reached by others: it has no key; give `--open-without-key`" in refused.stderr
        assert refused.stderr.count("\n") == 1
    assert deployed == []
    for arguments in ([], ["--host", "::1"], ["--host", "0.0.0.0", "--open-without-key"]):
        assert CliRunner().invoke(app, [*up, *arguments]).stdout == "http://deployed/v1\n"
    assert deployed == ["127.0.0.1", "::1", "0.0.0.0"]


def test_a_service_that_others_reach_needs_a_key_or_the_word_of_the_user(deployed: list[str]) -> None:
    everywhere = serve_app.ServeOptions("0.0.0.0")
    with pytest.raises(ConfigError, match="can be reached by others: give `key_file`, or `open_without_key: true` if"):
        serve_app.deploy_service(FakeSettings(), options=everywhere)
    assert deployed == []
    serve_app.deploy_service(FakeSettings())
    for settings in (FakeSettings(key_file="key"), FakeSettings(open_without_key=True)):
        serve_app.deploy_service(settings, options=everywhere)
    serve_app.deploy_service(FakeSettings(), options=serve_app.ServeOptions("0.0.0.0", open_without_key=True))
    assert deployed == ["127.0.0.1", "0.0.0.0", "0.0.0.0", "0.0.0.0"]


def test_an_application_needs_a_pool_and_a_name_for_its_url(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no `pool` to start"):
        serve_app.judge_application(parse_config({"model": "m", "endpoints": ["http://h"]}), tmp_path, {})
    with pytest.raises(ConfigError, match="'a judge' cannot be part of a URL"):
        serve_app.deploy(parse_config({"model": "m", "name": "a judge", "pool": {}}), tmp_path)


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
    application: Any = SimpleNamespace(status=SimpleNamespace(value=status), message="", deployments=deployments)
    assert serve_app._problem(application) == said
