"""From a run's judge to the settings of its own service, and to what workers need to ask that."""

from pathlib import Path

import pytest
from composed_run import composed

from speciarl.config import SpeciaRLConfig, load
from speciarl.training.trainer.run_verifier import CLIENTS_KEYS, JUDGE, RunVerifier, client_config, service_settings
from speciarl.utils.credentials import read_key, write_key
from speciarl.verifier_server.config import parse_config

URL = "http://127.0.0.1:4321"


def settings(*overrides: str) -> SpeciaRLConfig:
    return load(composed("+recipe=speciarl", *overrides))


@pytest.mark.parametrize("option", ["taxonomy", "qwen3_30b_a3b", "laptop", "gemini"])
def test_the_service_has_the_runs_judge_and_only_that(option: str) -> None:
    more = ["speciarl.verifier.model=m", "speciarl.verifier.api_key_file=key"] if option == "gemini" else []
    judge = settings(f"recipe/verifier={option}", *more).verifier
    if judge.pool is not None:
        judge = judge.model_copy(update={"endpoints": ("http://127.0.0.1:1/v1",), "pool": None})
    service = service_settings(judge, "127.0.0.1", Path("verifier.key"))
    (name, held), *_ = service.judges.items()
    assert (name, len(service.judges), service.key_file) == (JUDGE, 1, "verifier.key")
    assert held.model_dump() == judge.model_dump()
    assert service.limits.waiting_pairs > judge.max_waiting


def test_a_worker_knows_the_service_and_its_own_patience_and_nothing_of_the_judge() -> None:
    judge = settings("recipe/verifier=taxonomy", "+speciarl.verifier.total_deadline_s=123").verifier
    client = client_config(judge, URL, Path("file"))
    assert (client.service_url, client.api_key_file, client.name, client.store) == (URL, "file", JUDGE, None)
    assert {name: getattr(client, name) for name in CLIENTS_KEYS} == {
        name: getattr(judge, name) for name in CLIENTS_KEYS
    }
    assert client.request_timeout_s == 123  # an answer takes as long as its pairs, not as one request to the judge
    assert parse_config(client.model_dump(mode="json", exclude_unset=True)) == client


def test_a_service_that_stands_is_used_as_it_is() -> None:
    given = settings("recipe/verifier=service", "speciarl.verifier.name=j", f"speciarl.verifier.service_url={URL}")
    verifier = RunVerifier(given, "cpu")
    assert verifier.start() == given.verifier
    assert (verifier.url, verifier.stats(), verifier.judge_urls) == (None, [], [URL])
    verifier.stop()


def test_a_key_is_for_its_owner_alone_whatever_was_there(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "verifier.key"
    path.parent.mkdir()
    path.write_text("old")
    path.chmod(0o644)
    write_key(path, "secret")
    assert (read_key(str(path), "run"), path.stat().st_mode & 0o777) == ("secret", 0o600)
