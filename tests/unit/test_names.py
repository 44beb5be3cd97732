from __future__ import annotations

import pytest

from octogen_dagster.errors import OctogenBigQueryError, OctogenBigQueryInputError
from octogen_dagster.sharing.names import (
    ListingName,
    checked_dataset_id,
)

LISTING = "projects/octo/locations/us/dataExchanges/catalogs/listings/acme"


@pytest.mark.parametrize(
    ("resource", "problem"),
    [
        ("", "projects/<project> is missing"),
        ("projects//locations/us/dataExchanges/c/listings/a", "the project is missing"),
        ("projects/octo", "locations/<location> is missing"),
        ("projects/octo/locations/us/listings/a", "dataExchanges/<exchange> is missing"),
        ("projects/octo/locations/us/dataExchanges/c", "listings/<listing> is missing"),
        ("projects/octo/locations/us/dataexchanges/c/listings/a", "dataExchanges/<exchange> is"),
        (f"{LISTING}/", "it continues after the listing"),
        (LISTING.replace("acme", "ac me"), "the listing 'ac me'"),
        (LISTING.replace("us", "u:s"), "the location 'u:s'"),
        (LISTING.replace("octo", "oc\0to"), "the project 'oc\\x00to'"),
        (LISTING.replace("octo", "o" * 101), "the project 'ooo"),
        (LISTING.replace("acme", "ac...me"), "the listing 'ac...me'"),
        (LISTING.replace("acme", "\ud800"), "the listing '\\ud800'"),
        (LISTING.replace("catalogs", "c" * 101), "the exchange 'ccc"),
    ],
)
def test_a_name_that_is_none_says_what_is_wrong_with_it(resource: str, problem: str) -> None:
    with pytest.raises(OctogenBigQueryInputError) as caught:
        ListingName.parse(resource)
    message = str(caught.value)
    assert message.startswith(f"{resource[:300]!r} is not the name of a listing: {problem}")
    assert "projects/<project>/locations/<location>/dataExchanges/<exchange>/listings/" in message
    assert isinstance(caught.value, OctogenBigQueryError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (LISTING, True),
        (LISTING.replace("us", "US"), True),
        (LISTING.replace("octo", "123"), True),
        (LISTING.replace("us", "eu"), False),
        (LISTING.replace("catalogs", "others"), False),
        (LISTING.replace("acme", "zen"), False),
    ],
)
def test_which_names_are_of_one_listing(other: str, same: bool) -> None:
    assert (ListingName.parse(LISTING).key == ListingName.parse(other).key) == same


@pytest.mark.parametrize(
    ("listing", "dataset"),
    [
        ("acme", "octogen_acme"),
        ("north-peak.v2", "octogen_north_peak_v2"),
        ("éa", "octogen__a"),
        ("12_3", "octogen_12_3"),
        ("目录", "octogen___"),
    ],
)
def test_the_default_dataset(listing: str, dataset: str) -> None:
    assert ListingName.parse(LISTING.replace("acme", listing)).default_dataset_id == dataset
    assert checked_dataset_id(dataset) == dataset


@pytest.mark.parametrize("dataset", ["", "a-b", "p.d", "a b", "é", "x" * 1025, "a\n"])
def test_a_dataset_id_that_cannot_be_one(dataset: str) -> None:
    with pytest.raises(OctogenBigQueryInputError, match="give 1 to 1,024 letters, digits and"):
        checked_dataset_id(dataset)
