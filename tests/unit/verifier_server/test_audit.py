"""The audit of a judge: what is asked, what is shown, and how it ends."""

import asyncio
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from listening import in_thread
from rich.console import Console
from typer.testing import CliRunner

from speciarl.errors import ConfigError, VerifierStartError
from speciarl.verdict import Unscorable
from speciarl.verifier_server.audit import audit, command, show
from speciarl.verifier_server.config import VerifierConfig, parse_config
from speciarl.verifier_server.judge.prompt import load_prompt
from speciarl.verifier_server.judge_config import judge_config
from speciarl.verifier_server.service.config_source import load_settings

MakeJudge = Callable[[], Any]
GOLDEN = {golden.pair.prediction: min(golden.expected).label for golden in load_prompt("base").golden}


@pytest.fixture
def judge(fake_judge: MakeJudge) -> Iterator[Any]:
    """A judge that calls wrong what it does not know."""
    server = fake_judge()
    server.answers = GOLDEN | {"": "abstain"}
    with in_thread(server.running()):
        yield server


def config(judge: Any, **changes: Any) -> VerifierConfig:
    defaults = {"name": "mine", "model": "fake", "endpoints": [judge.url], "retries": 0, "backoff_s": 0.01}
    return parse_config(defaults | changes)


def shown(result: Any, failures_only: bool = False) -> str:
    text = io.StringIO()
    show(result, Console(file=text, width=160), failures_only)
    return text.getvalue()


def test_a_judge_that_falls_for_nothing_passes(judge: Any) -> None:
    result = asyncio.run(audit(config(judge)))
    assert result.failed == ()
    assert (result.judge, result.prompt, result.decoding) == ("mine", "base", "first_token")
    golden = [finding for finding in result.findings if finding.golden.kind == "golden"]
    assert len(golden) == len(load_prompt("base").golden)
    text = shown(result)
    assert "0 of 81 pairs fail; 0 ways of gaming were rewarded" in text
    assert "judge mine, prompt base, first_token: 0 of 81" in text
    assert "…" in text  # the essay is cut
    assert "aubergine" not in shown(result, failures_only=True)


def test_shortcuts_are_off_and_every_pair_meets_the_judge(judge: Any) -> None:
    judge.answers["emperor penguin"] = "generic"
    result = asyncio.run(audit(config(judge, exact_shortcut=True, abstain_shortcut=True)))
    assert [finding.golden.pair.prediction for finding in result.failed] == ["emperor penguin"]
    assert not result.failed[0].rewarded  # wrong about a golden pair, and not gamed


def test_a_judge_that_can_be_gamed_is_found_out(judge: Any) -> None:
    judge.answers |= {"specific": "specific", "snow leopard or violin": "generic"}
    result = asyncio.run(audit(config(judge)))
    assert {finding.golden.pair.prediction for finding in result.failed} == {"specific", "snow leopard or violin"} & {
        finding.golden.pair.prediction for finding in result.findings
    }
    assert all(finding.rewarded for finding in result.failed)
    text = shown(result, failures_only=True)
    assert "echo" in text
    assert "wrong" in text


def test_a_pair_without_a_verdict_did_not_pass(judge: Any) -> None:
    async def mute(server: Any, _: Any) -> Any:
        from aiohttp import web

        content = server.requests[-1]["messages"][-1]["content"]
        return (
            web.Response(status=400, text="no")
            if "boxed" in content
            else web.json_response(server.completion(server.requests[-1]))
        )

    judge.plan = lambda _: mute
    result = asyncio.run(audit(config(judge)))
    assert len(result.failed) == 2
    assert all(isinstance(finding.judgement, Unscorable) and not finding.rewarded for finding in result.failed)
    assert "unscorable" in shown(result)


def test_the_decoding_is_what_a_run_would_use(judge: Any) -> None:
    judge.mass = 0.2
    assert asyncio.run(audit(config(judge))).decoding == "label_choice"


def test_what_has_no_judge_model_is_refused(judge: Any) -> None:
    for mapping, message in (
        ({"kind": "taxonomy", "taxonomy": "t.json"}, "the taxonomy judge has no model"),
        ({"service_url": "http://localhost:1"}, "a service answers from its store"),
    ):
        with pytest.raises(ConfigError, match=message):
            asyncio.run(audit(parse_config(mapping)))
    judge.models = ["other"]
    with pytest.raises(VerifierStartError, match="does not serve"):
        asyncio.run(audit(config(judge)))


def run(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(arguments))


def test_the_command_by_file_and_by_recipe(judge: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"model": "fake", "endpoints": [judge.url]}))
    outcome = run(str(file))
    assert outcome.exit_code == 0, outcome.output
    assert "0 of 81 pairs fail" in outcome.output
    judge.answers["i don t know"] = "generic"
    arguments = ("vllm", "model=fake", f"speciarl.verifier.endpoints=[{judge.url}]", "--failures-only")
    outcome = run(*arguments)
    assert outcome.exit_code == 1
    assert "1 of 81 pairs fail" in " ".join(outcome.output.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nosuch",), "there is no recipe/verifier=nosuch; known: gemini"),
        (("missing.yaml",), "missing.yaml cannot be read"),
        (("vllm",), "Missing mandatory value: model; give it as KEY=VALUE"),
        (("vllm", "model"), "'model' is no override"),
        (
            ("vllm", "request_fields={a: @}"),
            "request_fields: '{a: @}' is no YAML (found character '@'",
        ),
        (("vllm", "model=m", "endpoints=[http://h]", "retires=3"), "vllm.retires: there is no such key"),
        (("taxonomy",), "the taxonomy judge has no model"),
        (("vllm", "model=m", "endpoints=[http://127.0.0.1:9]", "startup_deadline_s=0.3"), "no usable endpoint"),
    ],
)
def test_what_cannot_be_asked_is_said_in_one_line(arguments: tuple[str, ...], message: str) -> None:
    outcome = run(*arguments)
    assert outcome.exit_code == 2
    assert message in outcome.output
    assert len(outcome.output.strip().splitlines()) == 1


TYPED = ["a #b", "a: b", "@x", "%x", "*x", "[x] y", "1234", "no", "2024-10-21", "it's", "ü {}"]


@pytest.mark.parametrize("text", TYPED)
def test_text_on_the_command_line_is_taken_as_it_was_typed(text: str, tmp_path: Path) -> None:
    """Read as YAML it would lose its end, become a number or a date, or be refused."""
    file = tmp_path / "judge.yaml"
    file.write_text("pool: {replicas: 1}")
    given = [f"model={text}", f"prompt={text}.yaml", f"speciarl.verifier.pool.dtype={text}", "pool.replicas=2"]
    config = judge_config(str(file), given)
    assert config.pool is not None
    assert (config.model, config.prompt, config.pool.dtype, config.pool.replicas) == (text, f"{text}.yaml", text, 2)
    words = [f"judges.a.model={text}", "judges.a.endpoints=[http://h]", f"judge_log_dir={text}"]
    service = load_settings(None, [], words)
    assert (service.judges["a"].model, service.judge_log_dir) == (text, text)


def test_options_of_recipes_carry_their_values() -> None:
    laptop = judge_config("laptop", ["max_string_chars=99", "pool.replicas=2"])
    assert (laptop.name, laptop.prompt, laptop.max_string_chars) == ("laptop", "compact", 99)
    assert laptop.pool is not None
    assert laptop.pool.replicas == 2
    assert Path(laptop.model or "").is_dir()
    gemini = judge_config("gemini", ["model=m", "api_key_file=key"])
    assert gemini.request_fields == {"reasoning_effort": "none"}
