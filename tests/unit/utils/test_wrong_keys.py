"""What a message on a wrong key says."""

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from speciarl.utils.wrong_keys import describe, meant


class Leaf(BaseModel):
    model_config = ConfigDict(extra="forbid")

    count: int = 0


class Root(BaseModel):
    model_config = ConfigDict(extra="forbid")

    leaf: Leaf | None = None
    leaves: dict[str, Leaf] = {}
    name: str = ""

    @field_validator("name")
    @classmethod
    def _short(cls, name: str) -> str:
        if len(name) > 3:
            raise ValueError("must be short")
        return name


def test_the_nearest_word_is_offered_else_all() -> None:
    assert meant("cuont", ["size", "count"]) == "did you mean count?"
    assert meant("zzz", ["size", "count"]) == "known: count, size"
    assert meant("zzz", []) == "there are none"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"nme": ""}, "nme: there is no such key; did you mean name?"),
        ({"zzz": ""}, "zzz: there is no such key; known: leaf, leaves, name"),
        ({"leaf": {"cuont": 1}}, "leaf.cuont: there is no such key; did you mean count?"),
        ({"leaves": {"a": {"zzz": 1}}}, "leaves.a.zzz: there is no such key; known: count"),
        ({"name": "long"}, "name: must be short"),
        ({"name": "long", "zzz": 1}, "name: must be short; zzz: there is no such key; known: leaf, leaves, name"),
    ],
)
def test_every_problem_names_its_key(given: object, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Root.model_validate(given)
    assert describe(caught.value, Root) == said
    assert describe(caught.value, Root, "at").startswith("at.")


def test_what_is_no_mapping_is_named_by_its_model_or_place() -> None:
    with pytest.raises(ValidationError) as caught:
        Root.model_validate(1)
    assert describe(caught.value, Root).startswith("Root: ")
    assert describe(caught.value, Root, "place").startswith("place: ")
