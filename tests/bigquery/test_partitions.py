"""Partition keys of listings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octogen_dagster.bigquery.partitions import (
    listing_of,
    listing_partition_key,
    listing_partitions,
    shares_default_dataset,
)
from octogen_dagster.errors import OctogenBigQueryInputError

RESOURCE = "projects/{}/locations/{}/dataExchanges/{}/listings/{}"
ids = st.from_regex(r"[A-Za-z0-9_]{1,20}", fullmatch=True)
projects = st.from_regex(
    r"([a-z]{1,9}\.[a-z]{1,3}:)?[a-z][a-z0-9-]{1,20}|[0-9]{6,12}", fullmatch=True
)


def test_the_partition_key_of_a_listing() -> None:
    key = listing_partition_key(RESOURCE.format("octogen", "US", "catalogs", "northpeak"))
    assert key == "octogen:US:catalogs:northpeak"
    assert listing_partitions.name == "octogen_listings"


@given(projects, st.sampled_from(["us", "EU", "europe-west3"]), ids, ids)
def test_a_partition_key_can_be_turned_back(
    project: str, location: str, exchange: str, listing: str
) -> None:
    resource = RESOURCE.format(project, location, exchange, listing)
    assert listing_of(listing_partition_key(resource)) == resource


@pytest.mark.parametrize("resource", ["", "northpeak", "projects/p/locations/us/dataExchanges/e"])
def test_only_listings_have_a_partition_key(resource: str) -> None:
    with pytest.raises(OctogenBigQueryInputError, match="is not the name of a listing"):
        listing_partition_key(resource)


@pytest.mark.parametrize("key", ["", "northpeak", "a:b:c", "p:us:e:", "p:u s:e:l"])
def test_a_key_that_is_no_listing_is_an_error(key: str) -> None:
    with pytest.raises(OctogenBigQueryInputError, match="Delete the partition, and add it again"):
        listing_of(key)


@pytest.mark.parametrize(
    ("key", "shares"),
    [
        ("octo:us:staging:acme", True),
        ("octo:eu:catalogs:acme", True),
        ("other:us:catalogs:acme", True),
        ("octo:us:catalogs:ac-me", False),
        ("octo:us:catalogs:acme", False),
        ("octo:US:catalogs:acme", False),
        ("123:us:catalogs:acme", False),
        ("acme", False),
    ],
)
def test_listings_that_share_a_default_dataset_id(key: str, shares: bool) -> None:
    assert shares_default_dataset("octo:us:catalogs:acme", ["nonsense", key]) is shares


def test_listings_whose_ids_differ_only_in_what_bigquery_does_not_allow_share_it() -> None:
    assert shares_default_dataset("octo:us:catalogs:ac-me", ["octo:us:catalogs:ac_me"])
