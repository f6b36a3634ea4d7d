"""Prompts: each asks for the form that `speciarl.answer` reads, and each row's is drawn by seed."""

import re
from collections import Counter
from pathlib import Path

import pytest

from data_prep.pipeline import prompts
from data_prep.pipeline.prompts import IMAGE, load
from speciarl.answer import is_abstention, parse
from speciarl.errors import DataPrepError

IDS = {
    "calibrated": "calibrated@4d4f8037",
    "elimination": "elimination@8d81749e",
    "general": "general@707545c1",
    "high_precision": "high_precision@aacb0e88",
    "max_correctness": "max_correctness@0d532f23",
    "max_specificity": "max_specificity@ffe2bf57",
    "specific": "specific@2c4ed3a9",
}
"""The texts as of now: another text means other training data, so a change has to be made here too."""
NAMES = tuple(IDS)


def test_the_templates_are_all_there_and_differ() -> None:
    assert tuple(prompts.known()) == NAMES
    pool = load(dict.fromkeys(NAMES, 1.0))
    assert {name: prompt.id for name, prompt in pool.prompts.items()} == IDS
    assert len({prompt.text for prompt in pool.prompts.values()}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_form_that_a_template_asks_for_is_the_one_that_is_read(name: str) -> None:
    text = load({name: 1.0}).prompts[name].text
    assert text.startswith(IMAGE)
    assert text == text.strip()
    form = re.search(r"The form of your reply: (.+)$", text)
    assert form is not None
    reply = form.group(1)
    assert parse(reply) == "the name"
    assert re.fullmatch(r"<think>.+</think><answer>the name</answer>", reply)
    assert parse(reply.replace("the name", "Golden-winged\nwarbler ")) == "Golden-winged\nwarbler"
    assert ("never" if name == "max_specificity" else "") + " write None as the answer" in text
    declined = parse(reply.replace("the name", "None"))
    assert declined is not None
    assert is_abstention(declined)


def test_a_template_gives_no_label_away() -> None:
    for name in NAMES:
        text = load({name: 1.0}).prompts[name].text.lower()
        assert not re.search(r"\b(bird|flower|car|aircraft|cat|dog|pet)s?\b", text), name


def test_every_row_has_its_prompt_by_seed_and_weight() -> None:
    pool = load({"general": 3.0, "specific": 1.0})
    drawn = [pool.pick(7, f"s/{number}").name for number in range(2000)]
    assert drawn == [pool.pick(7, f"s/{number}").name for number in range(2000)]
    assert drawn != [pool.pick(8, f"s/{number}").name for number in range(2000)]
    assert 0.7 < Counter(drawn)["general"] / 2000 < 0.8


def test_the_id_tells_a_changed_text(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    ids = []
    for extra in ("", " please"):
        file.write_text(f"<image>What is it{extra}? Reply as <answer>name</answer>.\n")
        ids.append(load({str(file): 1.0}).prompts["mine"].id)
    assert all(re.fullmatch(r"mine@[0-9a-f]{8}", found) for found in ids)
    assert ids[0] != ids[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("What? <answer></answer>", "<image> must stand in it exactly once"),
        ("<image><image><answer></answer>", "<image> must stand in it exactly once"),
        ("<image>What is it?", "it must ask for the answer inside"),
        ("<image><video><answer></answer>", "<video> would be taken for another medium"),
    ],
)
def test_templates_that_cannot_work_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.txt").write_text(text)
    with pytest.raises(DataPrepError, match=message):
        load({str(tmp_path / "mine.txt"): 1.0})


def test_unknown_missing_unreadable_and_clashing_templates(tmp_path: Path) -> None:
    with pytest.raises(DataPrepError, match="no prompt 'generel'; known: calibrated"):
        load({"generel": 1.0})
    with pytest.raises(DataPrepError, match="No such file"):
        load({str(tmp_path / "none.txt"): 1.0})
    (tmp_path / "general.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataPrepError, match="not UTF-8"):
        load({str(tmp_path / "general.txt"): 1.0})
    (tmp_path / "general.txt").write_text("<image><answer></answer>")
    with pytest.raises(DataPrepError, match="two templates are called 'general'"):
        load({"general": 1.0, str(tmp_path / "general.txt"): 1.0})
    with pytest.raises(DataPrepError, match="weight above 0"):
        load({"general": 0.0})


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("max_specificity", "never write None as the answer"),
        ("elimination", "list up to three things it could be"),
        ("elimination", "give the broadest name that you are certain of"),
        ("high_precision", "the narrowest name that stands up to them"),
    ],
)
def test_a_template_means_what_the_papers_means(name: str, meaning: str) -> None:
    assert meaning in load({name: 1.0}).prompts[name].text
