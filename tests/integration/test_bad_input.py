"""Bad input ends a run at once, before Ray starts, with one clear line and a non-zero status."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from reserved_port import reserve_port
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

DEADLINE_S = 120


def rows(count: int = 4) -> list[dict[str, Any]]:
    buffer = io.BytesIO()
    Image.new("RGB", (56, 56), (200, 90, 30)).save(buffer, "PNG")
    return [
        {
            "prompt": [{"role": "user", "content": "<image>Name it."}],
            "images": [{"bytes": buffer.getvalue(), "path": None}],
            "data_source": "emoji/animals",
            "ability": "classification",
            "reward_model": {"style": "verifier", "ground_truth": "dog face"},
            "extra_info": {"index": index, "split": "train", "sample_id": str(index), "stratum": "known"},
        }
        for index in range(count)
    ]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    pq.write_table(pa.Table.from_pylist(rows()), folder / "train.parquet")
    pq.write_table(pa.Table.from_pylist(rows()), folder / "test.parquet")
    nodes = [{"name": "animal mammal", "parent": None}, {"name": "dog face", "parent": "animal mammal"}]
    (folder / "taxonomy.json").write_text(json.dumps({"version": 1, "nodes": nodes}))
    return folder


def refuse(folder: Path, *overrides: str, recipe: str = "+recipe=[speciarl,laptop]") -> str:
    """Start training; returns what it printed. It must fail, soon, and never start Ray."""
    command = [
        sys.executable, "-m", "verl.trainer.main_ppo", recipe,
        f"data.train_files={folder}/train.parquet", f"data.val_files={folder}/test.parquet",
        f"hydra.run.dir={folder}/hydra", *overrides,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, cwd=folder)
    output = done.stdout + done.stderr
    assert done.returncode != 0, output
    assert "ray init kwargs" not in output
    return output


def the_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line.startswith("speciarl: ")]
    assert len(lines) == 1, output
    assert "Traceback" not in output, output
    return lines[0]


def taxonomy(folder: Path) -> tuple[str, str]:
    return "recipe/verifier=taxonomy", f"speciarl.verifier.taxonomy={folder}/taxonomy.json"


def test_unknown_recipe_lists_the_known_ones(good: Path) -> None:
    output = refuse(good, recipe="+recipe=typo")
    assert "recipe/typo" in output
    assert "laptop" in output
    assert "speciarl" in output
    assert "Traceback" not in output


def test_unknown_verifier_lists_the_known_ones(good: Path) -> None:
    output = refuse(good, "recipe/verifier=typo")
    assert "recipe/verifier/typo" in output
    assert "llama3_70b" in output
    assert "Traceback" not in output


def test_unknown_key_is_named(good: Path) -> None:
    line = the_line(refuse(good, "+speciarl.verifier.max_concurency=3"))
    assert "speciarl.verifier.max_concurency" in line
    assert "max_concurrency" in line


def test_missing_data_names_the_command_that_builds_it(good: Path) -> None:
    line = the_line(refuse(good, *taxonomy(good), f"data.train_files={good}/nowhere.parquet"))
    assert "data.train_files" in line
    assert "nowhere.parquet" in line
    assert "python -m data_prep build dataset=emoji" in line


def test_missing_column_is_named(good: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    pq.write_table(pa.Table.from_pylist([{k: v for k, v in row.items() if k != "images"} for row in rows()]), broken)
    line = the_line(refuse(good, *taxonomy(good), f"data.train_files={broken}"))
    assert str(broken) in line
    assert "lacks the column images" in line


def test_empty_label_names_the_row(good: Path, tmp_path: Path) -> None:
    broken, table = tmp_path / "broken.parquet", rows()
    table[2]["reward_model"]["ground_truth"] = " "
    pq.write_table(pa.Table.from_pylist(table), broken)
    line = the_line(refuse(good, *taxonomy(good), f"data.val_files={broken}"))
    assert f"{broken}, row 2: reward_model.ground_truth" in line


def test_endpoint_that_is_down(good: Path) -> None:
    with reserve_port() as reserved:
        port = reserved.getsockname()[1]
        line = the_line(
            refuse(
                good, "recipe/verifier=vllm", "speciarl.verifier.model=judge",
                f"speciarl.verifier.endpoints=[http://127.0.0.1:{port}/v1]", "+speciarl.verifier.startup_deadline_s=2",
            )
        )  # fmt: skip
    assert f"127.0.0.1:{port}" in line


def test_judge_whose_labels_share_a_first_token(good: Path, tmp_path: Path) -> None:
    _save_blurting_tokenizer(tmp_path)
    line = the_line(refuse(good, f"speciarl.verifier.model={tmp_path}", "+speciarl.verifier.decoding=first_token"))
    assert "begin with the same token" in line
    assert "decoding: choice" in line


def test_model_that_is_not_there(good: Path) -> None:
    line = the_line(refuse(good, *taxonomy(good), "actor_rollout_ref.model.path=./nothing"))
    assert "actor_rollout_ref.model.path=./nothing" in line


def _save_blurting_tokenizer(folder: Path) -> None:
    """A model directory, without weights, whose tokenizer begins every text with the same token, a space."""
    letters = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    fast.chat_template = "{% for message in messages %}{{ message['content'] }}<|im_end|>{% endfor %}<|im_start|>"
    fast.save_pretrained(folder)
    LlamaConfig(vocab_size=len(fast)).save_pretrained(folder)
