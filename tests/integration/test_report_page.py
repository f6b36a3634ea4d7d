"""The report's page in a real browser: it draws itself, asks for nothing, logs nothing, and no answer does anything."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import chromium
import evaluation_demo
import pytest
from chromium import Tab

from speciarl.evaluation import report, tables
from speciarl.evaluation.matrix import Asked

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="needs Chromium (apt-get install chromium)")

HARM = "document.title='taken'"
HOSTILE = f"</script><script>{HARM}</script><img src='http://127.0.0.1:9/x' onerror=\"{HARM}\">"
ANSWERS = {
    ("flowers", 0): HOSTILE, ("flowers", 1): "one\u2028two\u2029three", ("flowers", 2): "x" * 200_000,
    ("flowers", 3): "=cmd|' /C calc'!A0", ("flowers", 4): "\u202eesrever\u2066",
    ("flowers", 5): "nul \x00 bell \x07 esc \x1b",
}  # fmt: skip
COUNT = "document.querySelector('#browser .count').textContent"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluation")
    config, results = evaluation_demo.make(out, samples=60, judges=("llama", "qwen"), n=2, answers=ANSWERS)
    return next(path for path in report.write(config, results, out) if path.suffix == ".html")


def visit(page: Path, act: Callable[[Tab], Awaitable[None]]) -> None:
    """Open the page, act, and check that it logged and asked for nothing."""

    async def visited() -> None:
        async with chromium.tab() as tab:
            await tab.open(page)
            await act(tab)
            assert tab.messages == []
            assert tab.requests == []
            assert await tab.run("document.title") == "Made-up evaluation"

    asyncio.run(visited())


def choice(label: str, value: str) -> str:
    """JavaScript that makes a choice in the menu whose label begins so."""
    return (
        "(() => { const menu = [...document.querySelectorAll('label')]"
        f".find(label => label.textContent.startsWith({json.dumps(label)})).querySelector('select');"
        f" menu.value = {json.dumps(value)}; menu.dispatchEvent(new Event('change')); }})()"
    )


def search(text: str) -> str:
    """JavaScript that types a text to search for."""
    return (
        "(() => { const field = document.querySelector('#browser input[type=search]');"
        f" field.value = {json.dumps(text)}; field.dispatchEvent(new Event('input')); }})()"
    )


def test_it_draws_every_part(page: Path) -> None:
    async def act(tab: Tab) -> None:
        rows = "[...document.querySelectorAll('#leaderboard tbody tr')].filter(row => !row.hidden)"
        assert await tab.run(f"{rows}.map(row => row.cells[0].firstChild.textContent)[0]") == "speciarl"
        assert await tab.run(f"{rows}.length") == 4
        for part in ("plane svg", "bars svg", "curves svg", "transitions table", "judges table", "classes table"):
            assert await tab.run(f"document.querySelector('#{part}') !== null"), part
        assert await tab.run("document.querySelectorAll('#plane svg g').length") == 4
        assert await tab.run(COUNT) == "240 of 240 samples"
        assert await tab.run("document.documentElement.scrollWidth <= innerWidth")

    visit(page, act)


def test_sums_leave_out_what_is_not_scored_and_agreement_what_no_judge_saw(page: Path) -> None:
    def codes(model: str, judge: str) -> list[int]:
        paths = [Asked(model, name, "as_built").verdicts(page.parent, judge) for name in ("flowers", "pets")]
        rows = [row for path in paths for row in tables.read(path, tables.VERDICTS).to_pylist()]
        return [row["outcome"] for row in rows if row["index"] == 0]

    base, ours, other = codes("base", "llama"), codes("speciarl", "llama"), codes("speciarl", "qwen")
    from_a = [(a, b) for a, b in zip(base, ours, strict=True) if min(a, b) > -3]
    seen = [(a, b) for a, b in zip(ours, other, strict=True) if min(a, b) >= 0]
    better, worse, same = sum(b > a for a, b in from_a), sum(b < a for a, b in from_a), sum(b == a for a, b in from_a)
    agreed = 100 * sum(a == b for a, b in seen) / len(seen)

    async def act(tab: Tab) -> None:
        told = "document.querySelector('#{} .verdict').textContent"
        assert await tab.run("document.querySelector('.name-b').textContent") == "speciarl"
        assert await tab.run(told.format("transitions")) == (
            f"{better} better, {worse} worse, {same} the same, of {len(from_a)} scored in both."
        )
        shown = await tab.run(told.format("judges"))
        assert abs(float(shown.partition("agree on ")[2].split()[0]) - agreed) <= 0.5

    visit(page, act)


def test_filters_and_menus_choose_samples(page: Path) -> None:
    async def act(tab: Tab) -> None:
        await tab.run(choice("Data set", "1"))
        assert await tab.run(COUNT) == "60 of 240 samples"
        await tab.run(choice("Outcome of base", "0"))
        some = int((await tab.run(COUNT)).split()[0])
        assert 0 < some < 60
        first = "document.querySelector('.item .chips .chip')"
        assert await tab.run(f"{first}.textContent") == "W"
        await tab.run(choice("Outcome of base", ""))
        await tab.run(search("SAMOYED"))
        assert "samoyed" in await tab.run("document.querySelector('.item b').textContent")
        await tab.run(choice("Show", "1"))
        await tab.run("document.querySelector('#transitions td.same button[aria-label*=\"specific\"]').click()")
        await tab.run("document.querySelector('#leaderboard thead tr:last-child button').click()")
        assert await tab.run("document.querySelector('#leaderboard [aria-sort]').textContent") == "specificity"

    visit(page, act)


def test_the_keyboard_reaches_every_sample(page: Path) -> None:
    async def act(tab: Tab) -> None:
        key = "document.querySelector('.list').dispatchEvent(new KeyboardEvent('keydown', {{key: {!r}}}))"
        for name in ("ArrowDown", "PageDown", "End"):
            await tab.run(key.format(name))
        chosen = "document.querySelector('.item[aria-selected=true]').id"
        assert await tab.run(chosen) == "item-239"
        assert await tab.run("document.querySelectorAll('.item').length < 40")  # only what is in view exists

    visit(page, act)


def test_hostile_answers_are_shown_and_do_nothing(page: Path) -> None:
    async def act(tab: Tab) -> None:
        await tab.run(search("</script>"))
        assert await tab.run(COUNT) == "1 of 240 samples"
        assert await tab.run("document.querySelector('.detail .answer').textContent.startsWith('</script><script>')")
        await tab.run("document.querySelectorAll('.detail details').forEach(details => details.open = true)")
        await tab.run(search("xxxxxxxx"))
        assert "cut, 200,000 characters in all" in await tab.run("document.querySelector('.detail').textContent")
        await tab.run(search("one\u2028two"))
        assert await tab.run(COUNT) == "1 of 240 samples"
        await tab.run(search("=cmd"))
        assert await tab.run(COUNT) == "1 of 240 samples"
        assert await tab.run("document.scripts.length") == 4

    visit(page, act)


def test_a_script_that_is_not_ours_would_not_run(page: Path, tmp_path: Path) -> None:
    """The tests above would also pass without a policy; this one would not."""
    forged = tmp_path / "forged.html"
    text = page.read_text(encoding="utf-8")
    inserted = "<script>document.title = 'taken'</script><img src='http://127.0.0.1:9/x.png'></main>"
    forged.write_text(text.replace("</main>", inserted), encoding="utf-8")

    async def visited() -> None:
        async with chromium.tab() as tab:
            await tab.open(forged)
            assert await tab.run("document.title") == "Made-up evaluation"
            assert len([message for message in tab.messages if "Content Security Policy" in message]) == 2

    asyncio.run(visited())
