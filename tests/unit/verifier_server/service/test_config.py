"""Every wrong setting is named in one line, and nobody listens to the world by accident."""

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from speciarl.errors import ConfigError
from speciarl.utils.addresses import is_loopback
from speciarl.verifier_server.service import config as settings_module
from speciarl.verifier_server.service.config import ServiceConfig, is_run_name, parse_settings
from speciarl.verifier_server.service.config_source import load_settings
from speciarl.verifier_server.service.server import listen

GOLD: dict[str, Any] = {"judges": {"gold": {"kind": "taxonomy", "taxonomy": "tree.json"}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"judges": {}}, r"^judges: .*at least 1"),
        ({"judges": {"gold": 3}}, r"^judges\.gold: .*mapping \(got 3\)"),
        ({"judges": {"gold": {"kind": "taxonomy"}}}, r"^judges\.gold: `taxonomy` is missing"),
        ({"judges": {"gold": {"kind": "taxonomy", "taxonomy": "x", "retry": 1}}}, r"^judges\.gold\.retry: .*retries"),
        ({"judges": {"a/b": GOLD["judges"]["gold"]}}, r"^judges\.a/b.*pattern"),
        ({"judges": {"far": {"service_url": "http://h:1"}}}, "does not judge through another service"),
        ({"prot": 1}, r"^prot: there is no such key; known keys: .*port"),
        ({"limits": {"body": 1}}, r"^limits\.body: .*body_bytes"),
        ({"verdict_log": {"dir": "x", "directory": "y"}}, r"^verdict_log\.dir: .*directory"),
        ({"port": 70000}, r"^port: .*65535 \(got 70000\)"),
        ({"default_judge": "main"}, r"`default_judge` is 'main', which is not under `judges` \(gold\)"),
        ({"aliases": [{"model": "m", "judge": "main"}]}, r"`aliases\.0\.judge` is 'main'"),
        ({"aliases": [{"model": "m", "judge": "gold"}] * 2}, r"`aliases\.1` has the model and the prompt"),
        (
            {"aliases": [{"model": ["m", None], "judge": "gold"}, {"model": ["n", "m"], "judge": "gold"}]},
            r"`aliases\.1` has the model and the prompt",
        ),
        ({"aliases": [{"model": [], "judge": "gold"}]}, r"^aliases\.0\.model: "),
        ({"aliases": [{"prompt": 3, "judge": "gold"}]}, r"^aliases\.0\.prompt\.0: "),
        ({"binary": {"least": "best"}}, r"`least` is 'best'"),
        ({"limits": {"waiting_pairs": 1}}, "must not be below `pairs_per_request`"),
        ({"host": "0.0.0.0"}, "can be reached by others: give `key_file`"),
        ({"host": "judge.example.org"}, "can be reached by others: give `key_file`"),
        ({"host": "::"}, "can be reached by others: give `key_file`"),
    ],
)
def test_errors_name_the_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_settings(GOLD | changes)
    assert "\n" not in str(caught.value)


def test_a_judge_is_called_by_its_key_and_the_first_is_the_default() -> None:
    parsed = parse_settings(GOLD | {"judges": GOLD["judges"] | {"other": GOLD["judges"]["gold"]}})
    assert [judge.name for judge in parsed.judges.values()] == ["gold", "other"]
    assert (parsed.judge, parsed.binary_judge) == ("gold", "gold")
    assert parse_settings(GOLD | {"default_binary_judge": "gold"}).binary_judge == "gold"


@pytest.mark.parametrize("changes", [{"key_file": "key"}, {"open_without_key": True}])
def test_a_key_or_a_waiver_opens_other_addresses(changes: dict[str, Any]) -> None:
    assert parse_settings(GOLD | {"host": "0.0.0.0"} | changes).host == "0.0.0.0"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_is_this_machine_only(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example.org", ""])
def test_other_addresses_are_not(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "-a", "a\n", "a b", "x" * 129, "ä"])
def test_names_that_could_leave_the_directory_are_no_run_names(name: str) -> None:
    assert not is_run_name(name)


def test_every_field_is_described() -> None:
    tree = ast.parse(inspect.getsource(settings_module))
    for model in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for node, following in zip(model.body, [*model.body[1:], None], strict=True):
            if isinstance(node, ast.AnnAssign):
                assert isinstance(following, ast.Expr), ast.unparse(node)


def test_a_file_recipe_options_and_overrides_add_up(tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_text("port: 9000\njudges:\n  gold: {kind: taxonomy, taxonomy: a.json}\n")
    loaded = load_settings(file, ["taxonomy"], ["port=9001", "judges.gold.retries=7", "limits.runs=3"])
    assert (loaded.port, loaded.limits.runs) == (9001, 3)
    assert (loaded.judges["gold"].retries, loaded.judges["taxonomy"].taxonomy) == (7, "data/emoji/taxonomy.json")


@pytest.mark.parametrize(
    ("content", "options", "overrides", "message"),
    [
        (None, [], [], "there is no judge: give --config FILE or --verifier NAME"),
        (None, ["typo"], [], "there is no recipe/verifier=typo; known: .*taxonomy"),
        (None, ["vllm"], [], r"judges\.vllm\.\w+: Missing mandatory value"),
        (None, ["taxonomy"], ["port"], "'port' is no override"),
        (None, ["taxonomy"], ["port=["], r"port: '\[' is no YAML"),
        ("[1, 2]", [], [], "is no mapping"),
        ("a: [", [], [], "is no YAML"),
        ("judges: {a: '${nope}'}", [], [], "nope"),
    ],
)
def test_bad_sources_are_told_in_one_line(
    tmp_path: Path, content: str | None, options: list[str], overrides: list[str], message: str
) -> None:
    file = None
    if content is not None:
        file = tmp_path / "service.yaml"
        file.write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(file, options, overrides)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml cannot be read .*check the path"):
        load_settings(tmp_path / "missing.yaml", [], [])


def test_a_taken_port_is_named(make_settings: Callable[..., ServiceConfig]) -> None:
    with listen("127.0.0.1", 0) as first:
        first.listen()
        port = first.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1:{port} .*another `port`"):
            listen("127.0.0.1", port)


def test_the_example_in_the_documentation_is_valid() -> None:
    document = (Path(__file__).parents[4] / "docs" / "verifier_service.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", document, re.DOTALL)
    parsed = parse_settings(yaml.safe_load(example))
    assert parsed.judge == "qwen"
    assert parsed.judges["gold"].kind == "taxonomy"
    assert len(parsed.aliases) == 3
