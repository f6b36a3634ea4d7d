"""What of a judge model is downloaded before its server starts."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from typer.testing import CliRunner

from speciarl.verifier_server.config import VerifierConfig, parse_config
from speciarl.verifier_server.pool.model_download import app, download_command, wanted_files


def judge(model: str, **changes: Any) -> VerifierConfig:
    return parse_config({"model": model, "pool": {}} | changes)


def command(config: VerifierConfig) -> list[str] | None:
    assert config.pool is not None
    return download_command(config, config.pool)


def test_a_directory_needs_no_download(tmp_path: Path) -> None:
    assert command(judge(str(tmp_path))) is None


def test_a_model_of_the_hub_is_downloaded_to_where_the_server_looks() -> None:
    module = [sys.executable, "-m", "speciarl.verifier_server.pool.model_download"]
    assert command(judge("org/judge")) == [*module, "org/judge"]
    config = judge("org/judge", revision="abc", pool={"engine_args": {"download_dir": "/models"}})
    assert command(config) == [*module, "org/judge", "--revision", "abc", "--cache-dir", "/models"]


def test_weights_are_taken_once() -> None:
    both = ["config.json", "model-1.safetensors", "pytorch_model.bin", "original/a.safetensors", "m.md"]
    assert wanted_files(both) == ["config.json", "model-1.safetensors"]
    assert wanted_files(["config.json", "pytorch_model.bin", "a.py"]) == ["config.json", "pytorch_model.bin", "a.py"]
    assert wanted_files(["original/a.safetensors", "pytorch_model.bin"]) == ["pytorch_model.bin"]
    assert wanted_files([]) == []


class Hub:
    """Stands for the Hub's client."""

    def __init__(self, tells: BaseException | None = None, gives: BaseException | None = None) -> None:
        self.tells, self.gives = tells, gives
        self.asked: dict[str, Any] = {}

    def model_info(self, model: str, **_: Any) -> Any:
        if self.tells is not None:
            raise self.tells
        files = [SimpleNamespace(rfilename=name, size=5) for name in ("config.json", "a.safetensors", "a.bin")]
        return SimpleNamespace(siblings=files)

    def snapshot_download(self, model: str, **asked: Any) -> str:
        self.asked = {"model": model} | asked
        if self.gives is not None:
            raise self.gives
        return "/cache/main"


@pytest.mark.parametrize(
    ("hub", "status", "said"),
    [
        (Hub(), 0, "org/judge is in /cache/main"),
        (Hub(tells=ConnectionError("no\nroute")), 0, "(no route); what is in the cache has to do"),
        (Hub(gives=OSError("disk full")), 1, "error: org/judge cannot be downloaded: disk full"),
    ],
)
def test_a_download(
    hub: Hub,
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    ended = CliRunner().invoke(app, ["org/judge", "--revision", "main", "--cache-dir", str(tmp_path)])
    assert ended.exit_code == status
    assert said in ended.stdout
    if hub.tells is None:
        assert hub.asked["revision"] == "main"  # by its name, so that a server finds it under that without the Hub
        assert hub.asked["allow_patterns"] == ["config.json", "a.safetensors"]
