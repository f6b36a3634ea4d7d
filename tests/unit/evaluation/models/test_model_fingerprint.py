import os
import shutil
from pathlib import Path

import pytest
import tiny_models
from hypothesis import given, settings
from hypothesis import strategies as st

from speciarl.errors import DataError
from speciarl.evaluation.models.fingerprint import combined, fingerprint, loaded_files, loaded_weights, model_files


def sha(folder: Path) -> str:
    return fingerprint(folder, model_files(folder))


def test_a_copy_elsewhere_with_other_times_has_the_same_fingerprint(tmp_path: Path) -> None:
    first = tiny_models.model(tmp_path / "first")
    second = shutil.copytree(first, tmp_path / "deep" / "second")
    for file in second.iterdir():
        os.utime(file, (1, 1))
    (second / "README.md").write_text("something else")
    (second / "original").mkdir()
    (second / "original" / "consolidated.00.pth").write_text("the same weights again")
    (second / "optimizer.pt").write_text("x")
    assert sha(first) == sha(second)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "generation_config.json", "model-00002-of-00002.safetensors"]
)
def test_a_changed_byte_changes_it_though_time_and_size_stay(tmp_path: Path, name: str) -> None:
    folder = tiny_models.model(tmp_path / "model")
    before, file = sha(folder), folder / name
    status, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_mtime_ns == status.st_mtime_ns
    assert sha(folder) != before


def test_names_within_the_folder_are_content(tmp_path: Path) -> None:
    folder = tiny_models.model(tmp_path / "model")
    before = sha(folder)
    (folder / "tokenizer.json").rename(folder / "vocab.json")
    assert sha(folder) != before


def test_a_new_chat_template_changes_it(tmp_path: Path) -> None:
    folder = tiny_models.model(tmp_path / "model")
    seen = {sha(folder)}
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    seen.add(sha(folder))
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("{{ tools }}")
    seen.add(sha(folder))
    assert len(seen) == 3


def test_weights_of_the_first_kind_only() -> None:
    names = ["model.safetensors", "pytorch_model.bin", "optimizer.bin", "config.json", "original/a.safetensors"]
    assert loaded_weights(["pytorch_model.bin", "training_args.bin"]) == ["pytorch_model.bin"]
    assert loaded_files(names) == ["config.json", "model.safetensors"]


@settings(max_examples=50)
@given(*[st.lists(st.text("a:1", max_size=2), max_size=3)] * 2)
def test_different_lists_have_different_hashes(first: list[str], second: list[str]) -> None:
    assert (combined(*first) == combined(*second)) == (first == second)


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("config.json", "no config.json"),
        ("model-00002-of-00002.safetensors", "lacks model-00002-of-00002.safetensors"),
        ("*.safetensors", "no weights"),
    ],
)
def test_an_incomplete_model_is_refused_in_a_line(tmp_path: Path, missing: str, said: str) -> None:
    folder = tiny_models.model(tmp_path / "model")
    for file in list(folder.glob(missing)):
        file.unlink()
    with pytest.raises(DataError, match=said) as refusal:
        model_files(folder)
    assert "\n" not in str(refusal.value)
