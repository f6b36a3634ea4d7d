"""The demo's report from small files in the formats that training writes."""

import importlib.util
import io
import json
import sys
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

EXAMPLE = Path(__file__).parents[3] / "examples" / "laptop" / "report.py"


@pytest.fixture(scope="module")
def report() -> ModuleType:
    spec = importlib.util.spec_from_file_location("laptop_report", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def write_answers(path: Path, categories: list[str]) -> None:
    rows = [
        {
            "sample_id": str(index), "data_source": "in" if index < 2 else "out", "gts": "lion", "answer": "cat",
            "stratum": "known" if index % 2 == 0 else "unknown", "category": category,
        }
        for index, category in enumerate(categories)
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")


def test_table(report: ModuleType, tmp_path: Path) -> None:
    write_answers(tmp_path / "0.jsonl", ["generic", "generic", "generic", "unparsable"])
    write_answers(tmp_path / "1.jsonl", ["specific", "less_specific", "specific", "wrong"])
    before, after = (report.read_records(tmp_path / f"{step}.jsonl") for step in (0, 1))
    cells = report.comparison(before, after, "in")
    rows = {(row[0], row[1]): row for row in cells if row[1] == "before"}
    assert rows["in domain", "before"][-3:] == ["1.000", "0.250", "0.400"]
    in_domain_after = cells[1]
    assert in_domain_after[-3:-1] == ["1.000", "0.750"]
    assert any(row[0] == "out of domain" and row[-3] == "0.500" for row in cells)
    assert not any("partial" in row[0] for row in cells)  # a section without answers is left out
    assert report.markdown_table(cells).count("\n|") == len(cells) + 1
    assert report.terminal_table(cells).row_count == len(cells)


def test_pictures(report: ModuleType, tmp_path: Path) -> None:
    write_answers(tmp_path / "0.jsonl", ["generic", "generic", "generic", "generic"])
    write_answers(tmp_path / "1.jsonl", ["specific", "less_specific", "specific", "wrong"])
    before, after = (report.read_records(tmp_path / f"{step}.jsonl") for step in (0, 1))
    logs = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for log, steps in zip(logs, ([1, 2], [2, 3]), strict=True):
        mix = {f"speciarl/rate/{name}": float(name == "generic") for name in report.CATEGORY_KEYS}
        log.write_text("".join(json.dumps({"step": step, "data": mix}) + "\n" for step in steps))
    assert list(report.read_mix(logs)) == [1, 2, 3]
    report.plot(logs, before, after, "in", tmp_path / "report.png")
    assert Image.open(tmp_path / "report.png").size[0] > 800

    examples = report.pick_examples(before, after, "in")
    assert {new.sample_id for _, new in examples} == {"0", "1", "2", "3"}
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    rows = [
        {"images": [{"bytes": buffer.getvalue(), "path": None}], "extra_info": {"sample_id": str(index)}}
        for index in range(4)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    report.contact_sheet(examples, tmp_path / "test.parquet", tmp_path / "examples.png")
    assert Image.open(tmp_path / "examples.png").size[0] > 400
