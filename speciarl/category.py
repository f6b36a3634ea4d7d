"""Category: the six ordered verdicts of the verifier (paper, section on the verifier)."""

import enum


class Category(enum.IntEnum):
    """How a prediction relates to the ground truth; a larger value is a better answer."""

    WRONG = 0
    """Incorrect, contradictory, malformed, unrelated, or several options at once."""

    ABSTAIN = 1
    """Refuses or says nothing."""

    GENERIC = 2
    """Right, but much broader than the ground truth."""

    LESS_SPECIFIC = 3
    """Right, and a close parent of the ground truth."""

    SPECIFIC = 4
    """The same thing, or a synonym of it."""

    MORE_SPECIFIC = 5
    """A correct subtype of the ground truth."""

    @property
    def label(self) -> str:
        """The label by which a judge names it, e.g. ``less specific``."""
        return self.name.lower().replace("_", " ")

    @classmethod
    def from_label(cls, label: str) -> "Category":
        """The category of an exact label; raises ValueError for any other text."""
        try:
            return _BY_LABEL[label]
        except KeyError:
            raise ValueError(f"{label!r} is no category label; expected one of {', '.join(LABELS)}") from None


LABELS: tuple[str, ...] = tuple(category.label for category in Category)
"""All labels, in category order."""

_BY_LABEL = {category.label: category for category in Category}
