"""Sampled rollouts: which are kept, and a page that shows them and runs nothing."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from speciarl.category import Category
from speciarl.metrics import key
from speciarl.reward import Unparsable
from speciarl.reward.barrier import GroupOutcome
from speciarl.training.observability import sample_page
from speciarl.training.observability.rollout_samples import (
    RESPONSE_CHARS,
    THUMBNAIL_PIXELS,
    SampleBook,
    SampledGroup,
    clipped,
    thumbnail,
)
from speciarl.verdict import Reason, Source, Unscorable, Verdict

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(1)>'\"&</table>"


def finished(book: SampleBook, step: int, text: str = "lion", image: Image.Image | None = None) -> SampledGroup | None:
    draft = book.draft(step, text, text, text)
    if draft is None:
        return None
    draft.record(0, f"<answer>{text}</answer>", text, Verdict(Category.SPECIFIC, 1.5, Source.LIVE))
    draft.record(2, text, None, Unparsable())
    draft.record(1, text, text, Unscorable(Reason.TIMEOUT, text))
    group = draft.finish(GroupOutcome((1.0, None, -1.0), Category.SPECIFIC, 2), image)
    book.add(group)
    return group


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.handlers: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(page: str) -> Elements:
    elements = Elements()
    elements.feed(page)
    return elements


def test_the_first_groups_of_every_nth_step_are_kept() -> None:
    book = SampleBook(every=5, per_step=2)
    kept = [step for step in (1, 5, 5, 5, 6, 10) if finished(book, step)]
    assert kept == [5, 5, 10]
    assert [group.step for group in book.drain()] == [5, 5, 10]
    assert book.drain() == []


def test_a_book_that_nobody_reads_does_not_grow() -> None:
    book = SampleBook(every=1, per_step=3)
    for step in range(1, 50):
        finished(book, step)
    assert [group.step for group in book.drain()] == [44, 45, 46, 47, 48, 49]


def test_zero_means_never() -> None:
    book = SampleBook(every=0, per_step=3)
    assert all(book.draft(step, "", "", "") is None for step in range(20))


@given(st.sampled_from(["RGB", "RGBA", "L", "P", "1", "CMYK"]), st.integers(1, 400), st.integers(1, 400))
def test_thumbnails_are_small_jpegs_and_leave_the_image_alone(mode: str, width: int, height: int) -> None:
    image = Image.new(mode, (width, height))
    small = Image.open(io.BytesIO(thumbnail(image)))
    assert (image.mode, image.size) == (mode, (width, height))
    assert (small.format, small.mode) == ("JPEG", "RGB")
    assert max(small.size) == min(THUMBNAIL_PIXELS, max(width, height))


def test_long_texts_lose_their_middle() -> None:
    text = "a" * 5000 + "b" * 5000
    assert len(clipped(text)) < 2 * RESPONSE_CHARS + 10
    assert clipped(text).startswith("a" * RESPONSE_CHARS)
    assert clipped(text).endswith("b" * RESPONSE_CHARS)
    assert clipped("short") == "short"


def test_a_page_shows_every_rollout_and_its_image() -> None:
    group = finished(SampleBook(1, 1), 1, image=Image.new("RGB", (300, 200), "red"))
    assert group is not None
    elements = parsed(sample_page.render("Rollouts", [group]))
    assert elements.tags.count("tr") == 1 + 3
    for shown in ("specific", "unparsable", "unscorable", "timeout: lion", "1.50", "-1.00"):
        assert shown in elements.text
    (source,) = elements.sources
    assert source == "data:image/jpeg;base64," + base64.b64encode(group.thumbnail or b"").decode()


@given(st.one_of(st.just(ATTACK), st.text(max_size=80)))
def test_no_text_becomes_markup(text: str) -> None:
    page = sample_page.render(text, [group] if (group := finished(SampleBook(1, 1), 1, text)) else [])
    elements, harmless = parsed(page), parsed(sample_page.render("x", [finished(SampleBook(1, 1), 1)]))  # type: ignore[list-item]
    assert elements.tags == harmless.tags
    assert (elements.sources, elements.handlers) == ([], [])


@pytest.mark.parametrize("name", [*map(key, (*Category, None)), "unscorable"])
def test_every_category_has_a_colour(name: str) -> None:
    assert re.search(rf"^\.(\w+, \.)?{name}\b.*background: #", sample_page.render("x", []), re.MULTILINE)


def test_a_page_fetches_and_runs_nothing() -> None:
    page = sample_page.render("x", [])
    assert re.search(r'Content-Security-Policy" content="default-src \'none\'', page)
    assert "http://" not in page
    assert "https://" not in page


def test_pages_are_written_whole_and_only_the_newest_stay(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "samples"
    for step in (5, 100, 20, 1000):
        page = sample_page.write(folder, step, [], kept=2)
    assert [path.name for path in sorted(folder.iterdir())] == ["step_0000100.html", "step_0001000.html"]
    assert (folder / "step_0001000.html").read_text() == page


def test_a_page_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(OSError, match="file"):
        sample_page.write(blocker / "samples", 1, [], kept=1)
