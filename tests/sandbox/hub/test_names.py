"""Resource names: parsed, written and refused."""

import pytest

from octogen_dagster.sandbox.hub.names import (
    ExchangeName,
    ListingName,
    Refusal,
    is_dataset_id,
    is_project_id,
    parse_parent,
    project_number,
)


def test_a_listing_name_parses_its_own_text() -> None:
    name = ListingName("p", "us", "e", "l")
    assert str(name) == "projects/p/locations/us/dataExchanges/e/listings/l"
    assert ListingName.parse(str(name)) == name
    assert ExchangeName.parse(str(name.in_exchange)) == name.in_exchange


def test_a_parent_is_a_project_and_a_location() -> None:
    assert parse_parent("projects/p/locations/us") == ("p", "us")


@pytest.mark.parametrize("name", ["", "p", "projects/p", "projects/p/locations/us/x/y"])
def test_an_invalid_name_is_refused(name: str) -> None:
    for parse, kind in (
        (parse_parent, "location"),
        (ExchangeName.parse, "data exchange"),
        (ListingName.parse, "listing"),
    ):
        with pytest.raises(Refusal, match=f"Invalid {kind} resource name: '{name}'") as caught:
            parse(name)
        assert caught.value.code == "INVALID_ARGUMENT"


def test_project_numbers_have_twelve_digits_and_differ() -> None:
    numbers = {project_number(f"project-{n}") for n in range(1000)}
    assert len(numbers) == 1000
    assert {len(number) for number in numbers} == {12}


def test_a_project_number_is_stable() -> None:
    assert project_number("octogen-sandbox") == project_number("octogen-sandbox")


@pytest.mark.parametrize(
    ("text", "expected"), [("octogen_1", True), ("A" * 1024, True), ("a-b", False), ("", False)]
)
def test_a_dataset_id_has_letters_digits_and_underscores(text: str, expected: bool) -> None:
    assert is_dataset_id(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("my-project", True),
        ("example.com:my-project", True),
        ("P", False),
        ("my-project-", False),
        ("1project", False),
        ("", False),
    ],
)
def test_a_project_id_follows_google_s_rules(text: str, expected: bool) -> None:
    assert is_project_id(text) is expected
