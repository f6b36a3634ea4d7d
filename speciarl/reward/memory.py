"""The best category of every image in earlier steps: what the reward `best_so_far` remembers across epochs."""

import json
from collections.abc import Mapping
from pathlib import Path

from speciarl.category import Category

VERSION = 1


class BestLevels:
    """Per image, when it first reached which category.

    Notes may come in any order, from any worker and more than once: what is remembered is the same. A look sees only
    what was noted for earlier steps, so groups of one image in one step do not depend on which of them ends first.
    """

    def __init__(self) -> None:
        self._reached: dict[str, dict[Category, int]] = {}
        """Image -> category -> first step, without entries that another one makes needless."""

    def note(self, image: str, step: int, category: Category) -> None:
        """A group of this image reached `category` in `step`."""
        reached = self._reached.get(image, {})
        if any(better >= category and earlier <= step for better, earlier in reached.items()):
            return
        kept = {other: when for other, when in reached.items() if other > category or when < step}
        self._reached[image] = {**kept, category: step}

    def before(self, image: str, step: int) -> Category | None:
        """The best category that the image reached in steps before this one; None when it was never scored."""
        earlier = (category for category, when in self._reached.get(image, {}).items() if when < step)
        return max(earlier, default=None)

    def forget_after(self, step: int) -> None:
        """Cut back to what was noted up to a step, as if nothing had happened since.

        No entry that was left out as needless is missed: the one that outdid it was noted no later.
        """
        for image, reached in list(self._reached.items()):
            kept = {category: when for category, when in reached.items() if when <= step}
            if kept:
                self._reached[image] = kept
            else:
                del self._reached[image]

    def __len__(self) -> int:
        return len(self._reached)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BestLevels) and self._reached == other._reached

    __hash__ = None  # type: ignore[assignment]  # it changes

    def dump(self) -> dict[str, object]:
        """Everything as plain JSON."""
        images = {
            image: {category.name.lower(): step for category, step in sorted(reached.items())}
            for image, reached in sorted(self._reached.items())
        }
        return {"version": VERSION, "images": images}

    @classmethod
    def parse(cls, dumped: Mapping[str, object]) -> "BestLevels":
        """The inverse of `dump`; raises ValueError for anything else."""
        images = dumped.get("images")
        if dumped.get("version") != VERSION or not isinstance(images, dict):
            raise ValueError(f"no record of best levels, version {VERSION}")
        levels = cls()
        for image, reached in images.items():
            for name, step in reached.items():
                try:
                    levels.note(str(image), int(step), Category[str(name).upper()])
                except KeyError:
                    raise ValueError(f"{name!r} is no category") from None
        return levels


def save(levels: BestLevels, path: Path) -> None:
    """Write atomically."""
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(json.dumps(levels.dump()), encoding="utf-8")
    draft.replace(path)


def read(path: Path) -> BestLevels:
    """Raises ValueError, with the path, for a file that `save` did not write."""
    try:
        return BestLevels.parse(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
