"""Keys of answers depend on content, all of it, and on nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from speciarl.evaluation.predict.key import SEEDS_PER_QUESTION, answer_id, base_seed, content_id, setup_id

PARTS = st.lists(st.binary(max_size=20), max_size=4)


@given(PARTS, PARTS)
def test_where_a_part_ends_makes_a_difference(one: list[bytes], other: list[bytes]) -> None:
    assert (content_id(*one) == content_id(*other)) == (one == other)


def test_the_order_of_a_setups_fields_makes_no_difference() -> None:
    assert setup_id({"a": 1, "b": 0.5}) == setup_id({"b": 0.5, "a": 1})
    assert setup_id({"a": 1}) != setup_id({"a": 2})


@given(st.integers(0, 2**31), st.binary(max_size=30), st.binary(max_size=30))
def test_base_seeds_leave_room_for_all_answers_and_fit_64_bits(seed: int, prompt: bytes, images: bytes) -> None:
    first = base_seed(seed, prompt, images)
    assert first % SEEDS_PER_QUESTION == 0
    assert 0 <= first <= 2**62 - SEEDS_PER_QUESTION


def test_another_seed_prompt_or_image_draws_other_seeds() -> None:
    assert (
        len({base_seed(0, b"p", b"i"), base_seed(1, b"p", b"i"), base_seed(0, b"q", b"i"), base_seed(0, b"p", b"j")})
        == 4
    )


def test_every_part_of_an_answers_key_counts() -> None:
    keys = [
        answer_id("s", b"p", b"i", 1), answer_id("t", b"p", b"i", 1), answer_id("s", b"q", b"i", 1),
        answer_id("s", b"p", b"j", 1), answer_id("s", b"p", b"i", 2), answer_id("s", b"p", b"i", None),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
