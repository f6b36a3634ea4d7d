"""`speciarl verifier audit` against servers as they are: it works behind each quirk or names cause and remedy, and the
configurations in docs/judges.md are those that were tried."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer
import yaml
from listening import in_thread
from quirky_server import CHATS, KEY, MODEL, MODELS, QuirkyServer, audited
from stand_ins import REFUSED, SOUND, STAND_INS
from typer.testing import CliRunner

from speciarl.verifier_server.audit import command
from speciarl.verifier_server.judge.attacks import gaming_set

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs" / "judges.md"
QUICK = {"retries": 0, "backoff_s": 0.01, "total_deadline_s": 20, "startup_deadline_s": 0.2}
app = typer.Typer()
app.command()(command)


@pytest.fixture(scope="module")
def server() -> Iterator[QuirkyServer]:
    quirky = QuirkyServer({**audited("compact"), **audited("base")})
    with in_thread(quirky.running()):
        yield quirky


@pytest.fixture
def audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Runs the command on a configuration: its exit code and its output as one line."""

    def run(config: dict[str, Any]) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        Path("KEY_FILE").write_text(KEY)
        Path("judge.yaml").write_text(yaml.safe_dump(config))
        outcome = CliRunner().invoke(app, ["judge.yaml", "--failures-only"])
        return outcome.exit_code, outcome.output.strip()

    return run


def behind(server: QuirkyServer, quirk: str, query: str = "", **changes: Any) -> dict[str, Any]:
    """The configuration of a judge behind one quirk."""
    plain = {"kind": "openai", "model": MODEL, "endpoints": [f"{server.url}/{quirk}/v1{query}"], "prompt": "compact"}
    return plain | QUICK | changes


def test_no_quirk_is_left_untried() -> None:
    assert {*SOUND, *REFUSED} == {*MODELS, *CHATS, "no-quirk-at-all"}


@pytest.fixture
def few_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Golden pairs and some attacks show whether a server can be worked with; all of them, whether a judge is fit."""
    monkeypatch.setattr("speciarl.verifier_server.audit.gaming_set", lambda prompt: gaming_set(prompt)[:8])


@pytest.mark.usefixtures("few_attacks")
@pytest.mark.parametrize("quirk", SOUND)
def test_a_sound_judge_passes_whatever_its_server_is_like(quirk: str, server: QuirkyServer, audit: Any) -> None:
    code, output = audit(behind(server, quirk, **SOUND[quirk]))
    assert code == 0, output
    assert " 0 of " in output


@pytest.mark.parametrize("quirk", REFUSED)
def test_what_cannot_work_is_refused_with_its_cause_and_remedy(quirk: str, server: QuirkyServer, audit: Any) -> None:
    code, output = audit(behind(server, quirk))
    assert code == 2
    assert REFUSED[quirk] in output
    assert "\n" not in output


def rows() -> dict[str, tuple[dict[str, Any], list[str]]]:
    """The table of docs/judges.md: server -> its configuration, and the quirks in the column "tried"."""
    section = DOCS.read_text(encoding="utf-8").partition("## Servers and what they need")[2].partition("\n## ")[0]
    cells = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return {
        name.strip(): (yaml.safe_load(config.strip().strip("`")), re.findall(r"`(.+?)`", tried))
        for name, config, _, tried in cells[2:]
    }


def test_the_servers_in_the_docs_are_those_that_were_tried() -> None:
    table = rows()
    assert [*table] == ["vLLM", *STAND_INS]
    for name, stand_in in STAND_INS.items():
        config, tried = table[name]
        assert tried == [*stand_in.quirks, stand_in.refusal], name
        assert urlsplit(config["endpoints"]).path == stand_in.path, name


@pytest.mark.parametrize("name", STAND_INS)
def test_the_configuration_in_the_docs_passes_and_says_what_is_wrong(
    name: str, server: QuirkyServer, audit: Any
) -> None:
    config, _ = rows()[name]
    url, stand_in = urlsplit(config["endpoints"]), STAND_INS[name]
    for quirks in (stand_in.quirks, (*stand_in.quirks, stand_in.refusal)):
        at = url._replace(scheme="http", netloc=urlsplit(server.url).netloc, path=f"/{'+'.join(quirks)}{url.path}")
        quick = QUICK if stand_in.refusal in quirks else {"backoff_s": 0.01}  # waits that are none of the server's
        code, output = audit(config | {"endpoints": at.geturl()} | quick)
        if quirks == stand_in.quirks:
            assert code == 0, output
        else:
            assert code == 2
            assert REFUSED[stand_in.refusal] in output
            assert "\n" not in output


def test_vllm_in_the_docs(fake_judge: Any, audit: Any) -> None:
    config, tried = rows()["vLLM"]
    assert tried == []
    judge = fake_judge()
    judge.answers = {prediction: label for (_, prediction), label in audited("base").items()}
    with in_thread(judge.running()):
        url = urlsplit(config["endpoints"])._replace(netloc=urlsplit(judge.url).netloc).geturl()
        code, output = audit(config | {"endpoints": url, "model": "fake"})
    assert code == 0, output
    assert "first_token" in output


def test_gemini_in_the_docs_is_the_recipe() -> None:
    config, _ = rows()["Gemini"]
    recipe = yaml.safe_load((ROOT / "recipe" / "verifier" / "gemini.yaml").read_text())["speciarl"]["verifier"]
    assert recipe == recipe | config | {"endpoints": [config["endpoints"]], "model": "???", "api_key_file": "???"}
