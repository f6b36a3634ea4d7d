"""Verdict noise: one rung, by chance, and always the same for the same rollout."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.category import Category
from speciarl.reward import Unparsable
from speciarl.reward.noise import LADDER, Noise, RolloutIdentity, moved
from speciarl.verdict import Reason, Source, Unscorable, Verdict

W, A, G, L, S, M = Category
identities = st.builds(RolloutIdentity, st.text(max_size=8), st.integers(0, 10**6), st.integers(0, 64))


def category_seen(noise: Noise, category: Category, identity: RolloutIdentity) -> Category:
    seen = noise.apply(Verdict(category, 1.0, Source.LIVE, (0, 0, 0, 0, 1, 0)), identity)
    assert isinstance(seen, Verdict)
    return seen.category


@pytest.mark.parametrize(
    ("category", "down", "up"),
    [(W, A, A), (A, W, G), (G, A, L), (L, G, S), (S, L, L), (M, L, L)],
)
def test_rungs(category: Category, down: Category, up: Category) -> None:
    assert (moved(category, upwards=False), moved(category, upwards=True)) == (down, up)


@given(st.sampled_from(Category), identities, st.integers(0, 99))
def test_at_certainty_every_verdict_moves_by_exactly_one_rung(
    category: Category, identity: RolloutIdentity, seed: int
) -> None:
    seen = category_seen(Noise(probability=1, seed=seed), category, identity)
    assert abs(LADDER.index(seen) - LADDER.index(min(category, S))) == 1


@given(st.sampled_from(Category), identities, st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
def test_more_noise_moves_the_same_verdicts_the_same_way_and_more(
    category: Category, identity: RolloutIdentity, one: float, other: float, seed: int
) -> None:
    less, more = (category_seen(Noise(probability=p, seed=seed), category, identity) for p in sorted((one, other)))
    assert less in (category, more)


@given(st.sampled_from([Unparsable(), Unscorable(Reason.TIMEOUT)]), identities)
def test_what_is_no_verdict_passes(member: Unparsable | Unscorable, identity: RolloutIdentity) -> None:
    assert Noise(probability=1).apply(member, identity) is member


@given(st.sampled_from(Category), identities)
def test_without_noise_the_verdict_is_untouched(category: Category, identity: RolloutIdentity) -> None:
    verdict = Verdict(category, 1.0, Source.LIVE)
    assert Noise().apply(verdict, identity) is verdict


def test_a_moved_verdict_keeps_nothing_of_the_judges_certainty() -> None:
    seen = Noise(probability=1).apply(
        Verdict(S, 2.0, Source.STORE, (0, 0, 0, 0, 1, 0)), RolloutIdentity("pets/1", 1, 0)
    )
    assert seen == Verdict(L, None, Source.STORE, None)


@pytest.mark.parametrize("probability", [0.05, 0.1, 0.25])
def test_the_share_that_moves_is_the_probability_and_directions_are_even(probability: float) -> None:
    noise, total = Noise(probability=probability), 20_000
    seen = [category_seen(noise, G, RolloutIdentity(f"i{n // 100}", n % 100 // 10, n % 10)) for n in range(total)]
    share = 1 - seen.count(G) / total
    assert share == pytest.approx(probability, abs=0.015)
    assert seen.count(L) / total == pytest.approx(probability / 2, abs=0.015)


def test_each_part_of_the_identity_matters() -> None:
    noise = Noise(probability=0.5)

    def pattern(noise: Noise, image: str = "pets/1", step: int = 1) -> list[bool]:
        return [category_seen(noise, G, RolloutIdentity(image, step, n)) is G for n in range(64)]

    base = pattern(noise)
    assert base == pattern(noise)
    assert len(set(base)) == 2  # sessions differ
    for other in (pattern(noise, image="pets/2"), pattern(noise, step=2), pattern(Noise(probability=0.5, seed=7))):
        assert other != base


def test_these_draws_are_pinned() -> None:
    """A resumed run of a later version must not see other verdicts than the one that began it."""
    noise = Noise(probability=0.5, seed=42)
    seen = [category_seen(noise, G, RolloutIdentity("cub200/00017", 12, n)).name[0] for n in range(10)]
    assert "".join(seen) == "GGGGGAAGAL"
