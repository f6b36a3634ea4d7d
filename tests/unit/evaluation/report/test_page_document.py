"""The page as a document: policy, escaping, samples, determinism."""

import base64
import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from speciarl.errors import DataError
from speciarl.evaluation import report, tables
from speciarl.evaluation.config import EvaluationConfig
from speciarl.evaluation.matrix import Asked
from speciarl.evaluation.outcome import Outcome
from speciarl.evaluation.report import outcomes, page
from speciarl.evaluation.report.page import pictures
from speciarl.evaluation.results import Estimate, Results

WRITE = """
import sys
from pathlib import Path
from speciarl.evaluation import report
from speciarl.evaluation.config import parse
from speciarl.evaluation.results import load
results = load(Path(sys.argv[1]) / "results.json")
report.write(parse(dict(results.settings)), results, Path(sys.argv[1]))
"""
ENDINGS = ("md", "csv", "parquet", "html")


@pytest.fixture(scope="module")
def html(evaluation: tuple[EvaluationConfig, Results], out: Path) -> str:
    return page.render(*evaluation, out)


def embedded(html: str, name: str) -> Any:
    """The data under a name, as the page's script reads it."""
    found = re.search(rf'<script type="application/json" id="data-{name}">(.*?)</script>', html, re.DOTALL)
    assert found
    return json.loads(found.group(1))


def test_the_policy_allows_this_style_and_this_script_and_nothing_else(html: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy
    rules = policy.group(1).replace("&#39;", "'")
    for tag in ("style", "script"):
        blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert len(blocks) == 1
        digest = base64.b64encode(hashlib.sha256(blocks[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in rules
    assert rules.startswith("default-src 'none'; img-src data:;")
    assert "base-uri 'none'; form-action 'none'" in rules
    assert "unsafe" not in rules


def test_the_page_names_no_other_place(html: str) -> None:
    shell = re.sub(r'<script type="application/json".*?</script>', "", html, flags=re.DOTALL)
    assert re.findall(r"https?://[^\s\"'`]+", shell) == ["http://www.w3.org/2000/svg"]  # a name, not a request
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|innerHTML|outerHTML|insertAdjacent|eval\(", shell)
    assert not re.search(r"<[^>]*\s(?:on\w+|style)=", shell)


def test_hostile_answers_are_in_the_page_as_text_only(html: str) -> None:
    assert html.count("<script") == 4  # three blocks of data and ours
    assert "\u2028" not in html
    shown = {sample["id"]: sample for sample in embedded(html, "samples")["samples"]}
    answer, whole = shown["flowers/000002"]["runs"][0][0]["answer"]
    assert (answer, whole) == ("x" * 200, 200_000)
    assert shown["flowers/000000"]["runs"][0][0]["answer"][0].startswith("</script><script>")
    assert shown["flowers/000001"]["runs"][0][0]["answer"][0] == "a\u2028b\u2029c"


def test_names_from_the_settings_are_escaped(evaluation: tuple[EvaluationConfig, Results], out: Path) -> None:
    config, results = evaluation
    name = "<b onclick=1>&\"'"
    named = replace(results, name=name, definitions={name: name}, versions={name: name})
    html = page.render(config, named, out)
    assert "<b onclick" not in html
    assert html.count("&lt;b onclick=1&gt;&amp;&#34;&#39;") >= 5


def test_the_page_counts_verdicts_and_tells_what_is_sure(
    evaluation: tuple[EvaluationConfig, Results], tmp_path: Path
) -> None:
    config, results = evaluation
    cell = replace(results.cells[0], unscored={"timeout": 20}, failed={"timeout": 2})
    sure = replace(results.differences[0], p_holm=0.01, estimate=Estimate(0.2, 0.1, 0.3, 0.15, 0.25))
    open_still = replace(sure, estimate=Estimate(0.2, 0.1, 0.3, -0.05, 0.25))
    html = page.render(config, replace(results, cells=[cell], averages=[], differences=[sure, open_still]), tmp_path)
    assert f"<b>{cell.answers - 20}</b> verdicts" in html
    assert "<td>timeout 20, questions failed: timeout 2</td>" in html
    assert html.count('<tr class="sure">') == 1
    assert '<td class="number">.150 to .250</td>' in html
    assert '<td class="number">-.050 to .250</td>' in html


def test_the_index_holds_every_outcome_of_every_run(html: str, evaluation: tuple[EvaluationConfig, Results]) -> None:
    index = embedded(html, "index")
    numbers = embedded(html, "numbers")
    total = sum(dataset["rows"] for dataset in index["datasets"])
    assert total == 160
    for column in index["columns"]:
        run = numbers["runs"][column["run"]]
        packed = base64.b64decode(column["data"])
        codes = [(packed[row >> 1] >> 4 * (row % 2) & 15) - index["offset"] for row in range(total)]
        model = run["name"].split("/")[0]
        found: list[int] = []
        for dataset in index["datasets"]:
            path = Asked(model, dataset["name"], "as_built").verdicts(evaluation[0].out, run["judge"])
            verdicts = tables.read(path, tables.VERDICTS).to_pylist()
            per = [[row["outcome"] for row in verdicts[begin : begin + 3]] for begin in range(0, len(verdicts), 3)]
            found += [max(answers) if column["best"] else answers[0] for answers in per]
        assert codes == found
    assert len(index["columns"]) == 2 * len(numbers["runs"])
    classes = base64.b64decode(index["classes"]["data"])
    assert len(classes) == total * index["classes"]["bytes"]


def test_samples_have_pictures_truths_and_every_judge(html: str) -> None:
    samples = embedded(html, "samples")["samples"]
    assert len(samples) == 160
    assert all(sample["picture"].startswith("data:image/jpeg;base64,") for sample in samples)
    assert all(len(sample["path"]) == 3 and len(sample["runs"]) == 4 for sample in samples)
    assert all(
        set(answer["said"]) == {"llama", "qwen"} for sample in samples for run in sample["runs"] for answer in run
    )
    for sample in samples:
        for run in sample["runs"]:
            first, best = run[0]["said"]["llama"][0], run[-1]["said"]["llama"][0]
            assert len(run) == 1 or (best > first and run[1]["n"] > 0)


def test_the_same_bytes_in_other_places(evaluation: tuple[EvaluationConfig, Results], out: Path) -> None:
    seen = []
    for zone, locale, seed in (("UTC", "C", "0"), ("Asia/Kathmandu", "de_DE.UTF-8", "4711")):
        place = {"TZ": zone, "LC_ALL": locale, "LANG": locale, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", WRITE, out], env=os.environ | place, check=True, timeout=120)
        seen.append([(out / f"report.{ending}").read_bytes() for ending in ENDINGS])
    assert seen[0] == seen[1]
    assert (out / "report.html").read_text(encoding="utf-8") == page.render(*evaluation, out)


def test_a_report_can_be_had_without_data_files(
    evaluation: tuple[EvaluationConfig, Results], out: Path, tmp_path: Path
) -> None:
    config, results = evaluation
    elsewhere = {name: about.model_copy(update={"file": "gone.parquet"}) for name, about in config.datasets.items()}
    html = page.render(config.model_copy(update={"datasets": elsewhere}), results, out)
    assert {sample["picture"] for sample in embedded(html, "samples")["samples"]} == {None}
    assert embedded(page.render(config, results, tmp_path), "samples") == {"samples": []}
    assert [path.name for path in report.write(config, results, tmp_path)] == [f"report.{ending}" for ending in ENDINGS]


def test_a_picture_that_is_broken_is_left_out(tmp_path: Path) -> None:
    noise, whole = io.BytesIO(), io.BytesIO()
    Image.frombytes("L", (100, 100), random.Random(0).randbytes(10_000)).save(noise, "PNG")
    Image.new("LA", (200, 100), (90, 0)).save(whole, "PNG")
    broken = bytearray(noise.getvalue())
    broken[33:37] = b"\x00\x00\x01\x00"  # a length of the chunk of pixels after which no other chunk begins
    rows = [
        {"images": [{"bytes": content, "path": None}], "extra_info": {"sample_id": name}}
        for name, content in (("broken", bytes(broken)), ("no image", b"text"), ("whole", whole.getvalue()))
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")
    found = pictures.thumbnails(tmp_path / "data.parquet", ["broken", "no image", "whole"])
    assert list(found) == ["whole"]
    shown = Image.open(io.BytesIO(base64.b64decode(found["whole"].partition(",")[2])))
    assert (shown.format, shown.size, shown.getpixel((0, 0))) == ("JPEG", (88, 44), (255, 255, 255))
    with pytest.raises(SyntaxError), Image.open(io.BytesIO(bytes(broken))) as image:
        image.load()


def test_verdicts_of_other_predictions_are_refused(
    evaluation: tuple[EvaluationConfig, Results], tmp_path: Path
) -> None:
    config, results = evaluation
    asked = Asked("base", "flowers", "as_built")
    rows = tables.read(asked.predictions(config.out), tables.PREDICTIONS).to_pylist()
    tables.write(asked.predictions(tmp_path), tables.PREDICTIONS, rows[:-3], {})
    path = asked.verdicts(tmp_path, "llama")
    path.parent.mkdir(parents=True)
    pq.write_table(pq.read_table(asked.verdicts(config.out, "llama")), path)
    with pytest.raises(DataError, match="not of the predictions of the same name"):
        list(outcomes.load(results, tmp_path))


def test_verdicts_of_earlier_predictions_are_refused(
    evaluation: tuple[EvaluationConfig, Results], tmp_path: Path
) -> None:
    config, results = evaluation
    asked = Asked("base", "flowers", "as_built")
    rows = tables.read(asked.predictions(config.out), tables.PREDICTIONS).to_pylist()
    tables.write(asked.predictions(tmp_path), tables.PREDICTIONS, rows, {})
    verdicts = tables.read(asked.verdicts(config.out, "llama"), tables.VERDICTS).to_pylist()
    tables.write(asked.verdicts(tmp_path, "llama"), tables.VERDICTS, verdicts, {"predictions_sha": "another"})
    with pytest.raises(DataError, match="is of earlier predictions than"):
        list(outcomes.load(results, tmp_path))


def test_runs_that_were_asked_less_are_aligned(evaluation: tuple[EvaluationConfig, Results], tmp_path: Path) -> None:
    config, results = evaluation
    for model, skipped in (("base", slice(0, 6)), ("sft", slice(6, 9))):
        asked = Asked(model, "flowers", "as_built")
        for schema, source, target in (
            (tables.PREDICTIONS, asked.predictions(config.out), asked.predictions(tmp_path)),
            (tables.VERDICTS, asked.verdicts(config.out, "llama"), asked.verdicts(tmp_path, "llama")),
        ):
            rows = tables.read(source, schema).to_pylist()
            del rows[skipped]
            tables.write(target, schema, rows, {})
    (questions,) = outcomes.load(results, tmp_path)
    ids = questions.sample_ids.to_pylist()
    assert sorted(ids) == [f"flowers/{row:06d}" for row in range(40)]
    codes = {run.model: dict(zip(ids, judged.first.tolist(), strict=True)) for run, judged in questions.runs.items()}
    assert [name for name, code in codes["base"].items() if code == outcomes.NOT_ASKED] == [
        "flowers/000000",
        "flowers/000001",
    ]
    assert [name for name, code in codes["sft"].items() if code == outcomes.NOT_ASKED] == ["flowers/000002"]
    whole = tables.read(Asked("sft", "flowers", "as_built").verdicts(config.out, "llama"), tables.VERDICTS).to_pylist()
    assert all(
        codes["sft"][row["sample_id"]] == row["outcome"]
        for row in whole
        if row["index"] == 0 and row["sample_id"][-1] != "2"
    )
    assert min(Outcome) > outcomes.NOT_ASKED
