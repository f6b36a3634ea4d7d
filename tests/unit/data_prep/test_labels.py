"""Readable class names, and make, model and year of a car."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.readers.cars import LONG_MAKES, car_path
from data_prep.readers.parsing import readable


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("001.Black_footed_Albatross", "Black footed Albatross"),
        ("200.Common_Yellowthroat", "Common Yellowthroat"),
        ("01_blue_jay", "blue jay"),
        ("1.sparrow", "sparrow"),
        ("n02085620-Chihuahua", "Chihuahua"),
        ("02_house-finch", "house-finch"),
        ("_odd__name_ ", "odd name"),
        ("737-700", "737-700"),
        ("F/A-18", "F/A-18"),
        ("3_series", "3 series"),
        ("007", "007"),
        ("2012_03", "2012 03"),
        ("Crème_brûlée", "Crème brûlée"),
        ("12.Übergröße", "Übergröße"),
        ("___", ""),
    ],
)
def test_label_is_read_as_a_person_would_write_it(written: str, read: str) -> None:
    assert readable(written) == read


@given(st.text())
def test_readable_is_idempotent_and_tidy(text: str) -> None:
    read = readable(text)
    assert readable(read) == read
    assert "_" not in read
    assert read == " ".join(read.split())


@given(st.text(alphabet="abcÅß x-'/.", min_size=1).filter(str.strip))
def test_a_name_without_numbering_only_loses_superfluous_spaces(name: str) -> None:
    assert readable(name.replace(" ", "_")) == " ".join(name.split())


@pytest.mark.parametrize(
    ("name", "make", "model"),
    [
        ("AM General Hummer SUV 2000", "AM General", "AM General Hummer SUV"),
        ("Aston Martin V8 Vantage Coupe 2012", "Aston Martin", "Aston Martin V8 Vantage Coupe"),
        ("Land Rover Range Rover SUV 2012", "Land Rover", "Land Rover Range Rover SUV"),
        ("Ram C/V Cargo Van Minivan 2012", "Ram", "Ram C/V Cargo Van Minivan"),
        ("Dodge Ram Pickup 3500 Crew Cab 2010", "Dodge", "Dodge Ram Pickup 3500 Crew Cab"),
        ("Mercedes-Benz 300-Class Convertible 1993", "Mercedes-Benz", "Mercedes-Benz 300-Class Convertible"),
        ("Rolls-Royce Ghost Sedan 2012", "Rolls-Royce", "Rolls-Royce Ghost Sedan"),
        ("MINI Cooper Roadster Convertible 2012", "MINI", "MINI Cooper Roadster Convertible"),
        ("smart fortwo Convertible 2012", "smart", "smart fortwo Convertible"),
        ("Chrysler 300 SRT-8 2010", "Chrysler", "Chrysler 300 SRT-8"),
        ("Audi 100 Sedan 1994", "Audi", "Audi 100 Sedan"),
    ],
)
def test_car_is_split_into_make_model_and_year(name: str, make: str, model: str) -> None:
    assert car_path(name) == (make, model, name)


_WORD = st.text(alphabet=st.characters(whitelist_categories=("L", "N"), whitelist_characters="-/."), min_size=1)


@given(
    make=st.sampled_from(LONG_MAKES) | _WORD.filter(lambda word: word not in ("AM", "Aston", "Land")),
    model=st.lists(_WORD, min_size=1, max_size=4).map(" ".join),
    year=st.integers(1900, 2099),
)
def test_car_of_any_make_model_and_year_comes_apart_again(make: str, model: str, year: int) -> None:
    assert car_path(f" {make}  {model} {year}") == (make, f"{make} {model}", f"{make} {model} {year}")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "year"),
        ("Audi S4 Sedan", "year"),
        ("2012", "no model"),
        ("Audi 2012", "no model"),
        ("Land Rover 2012", "no model"),
        ("Audi S4 3012", "year"),
    ],
)
def test_car_of_another_form_is_refused(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        car_path(name)
