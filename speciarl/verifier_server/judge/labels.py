"""Label set: the labels a judge chooses from, with the category of each."""

from collections.abc import Sequence
from dataclasses import dataclass

from speciarl.category import LABELS, Category


@dataclass(frozen=True)
class Scheme:
    """Label set, worst label first, so that a tie goes to the worse one."""

    name: str
    labels: tuple[str, ...]
    categories: tuple[Category, ...]
    """Category of each label, in label order, all different."""

    @property
    def identity(self) -> str:
        """Part of the keys of stored verdicts: see `Decoder.identity`."""
        categories = ", ".join(f"<Category.{category.name}: {category.value}>" for category in self.categories)
        return f"Scheme(name={self.name!r}, labels={self.labels!r}, categories=({categories}))"

    def category(self, label: str) -> Category:
        """The category of an exact label; raises ValueError for any other text."""
        if label not in self.labels:
            raise ValueError(f"{label!r} is no label; expected one of {', '.join(self.labels)}")
        return self.categories[self.labels.index(label)]

    def label(self, category: Category) -> str:
        """The label of a category; raises ValueError when the set has none for it."""
        return self.labels[self.categories.index(category)]

    def spread(self, by_label: Sequence[float]) -> tuple[float, ...]:
        """Probabilities per category, shape (6,), from those per label; categories without a label get 0."""
        values = dict(zip(self.categories, by_label, strict=True))
        return tuple(values.get(category, 0.0) for category in Category)


SIX = Scheme("six", LABELS, tuple(Category))
"""One label per category."""

BINARY = Scheme("binary", ("wrong", "correct"), (Category.WRONG, Category.SPECIFIC))
"""`correct`: right at the level of the ground truth or finer. An abstention is `wrong`, as is a name that is too broad:
there is no label for either. Only `abstain_shortcut`, which asks no judge, still tells abstentions apart."""

SCHEMES = {scheme.name: scheme for scheme in (SIX, BINARY)}
"""All label sets by name."""
