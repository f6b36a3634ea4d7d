"""Names and seeds of a run that repeats."""

from hypothesis import given
from hypothesis import strategies as st

from speciarl.training.agent_loop.seeding import PromptUids, prompt_uid, rollout_seed, seeded

numbers = st.integers(0, 2**31)


@given(numbers, numbers, numbers)
def test_uids_fit_verls_keys(seed: int, step: int, ordinal: int) -> None:
    uid = prompt_uid(seed, step, ordinal)
    assert "_" not in uid
    assert uid == prompt_uid(seed, step, ordinal)


def test_neither_uids_nor_seeds_collide() -> None:
    uids = {prompt_uid(seed, step, n) for seed in range(5) for step in range(20) for n in range(20)}
    assert len(uids) == 5 * 20 * 20
    seeds = {rollout_seed(42, uid, session) for uid in list(uids)[:100] for session in range(10)}
    assert len(seeds) > 995  # 1000 draws of 31 bits
    assert all(0 <= one < 2**31 for one in seeds)


def test_names_are_the_same_on_every_machine() -> None:
    assert prompt_uid(42, 7, 3) == "afe3932f-52c5-2c78-f958-923f6fd88355"
    assert rollout_seed(42, "a-prompt", 9) == 513880233


def test_without_a_seed_the_server_draws() -> None:
    assert seeded({"temperature": 1.0}, None, "p", 0) == {"temperature": 1.0}
    assert seeded({"temperature": 1.0}, 1, "p", 0) == {"temperature": 1.0, "seed": rollout_seed(1, "p", 0)}


def test_a_steps_prompts_are_numbered_as_they_are_fetched() -> None:
    uids = PromptUids(42)
    assert uids.draw(7, 2) + uids.draw(7, 1) == [prompt_uid(42, 7, ordinal) for ordinal in range(3)]
    assert uids.draw(8, 1) == [prompt_uid(42, 8, 0)]


@given(st.sets(st.integers(0, 9)), st.lists(st.integers(1, 3), max_size=4))
def test_prompts_under_way_keep_their_uids_to_themselves(under_way: set[int], fetches: list[int]) -> None:
    """A checkpoint may hold prompts of the very step that is fetched for again."""
    taken = {prompt_uid(1, 3, ordinal) for ordinal in under_way}
    uids = PromptUids(1)
    uids.exclude(taken)
    drawn = [uid for count in fetches for uid in uids.draw(3, count)]
    assert len(set(drawn)) == sum(fetches)
    assert not taken & set(drawn)
