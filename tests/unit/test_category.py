"""The ladder of categories and its words."""

import pytest

from speciarl.category import LABELS, Category


def test_order_is_the_papers() -> None:
    assert (
        Category.WRONG
        < Category.ABSTAIN
        < Category.GENERIC
        < Category.LESS_SPECIFIC
        < Category.SPECIFIC
        < Category.MORE_SPECIFIC
    )
    assert [category.value for category in Category] == list(range(6))


def test_labels_are_the_words_on_the_wire() -> None:
    assert LABELS == ("wrong", "abstain", "generic", "less specific", "specific", "more specific")


@pytest.mark.parametrize("category", list(Category))
def test_label_round_trip(category: Category) -> None:
    assert Category.from_label(category.label) is category
    assert LABELS[category] == category.label


@pytest.mark.parametrize("text", ["", "Wrong", " specific", "less_specific", "LESS SPECIFIC", "robin"])
def test_only_exact_labels_are_read(text: str) -> None:
    with pytest.raises(ValueError, match="no category label"):
        Category.from_label(text)
