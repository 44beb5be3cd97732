"""Partitions of Analytics Hub listings.

A listing's partition key is `<project>:<location>:<exchange>:<listing>`. It is parsed from the
right, without network or state.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import dagster as dg

from octogen_dagster.errors import OctogenBigQueryInputError
from octogen_dagster.sharing.resource_names import ListingName

if TYPE_CHECKING:
    from collections.abc import Iterable

listing_partitions = dg.DynamicPartitionsDefinition(name="octogen_listings")
"""The Analytics Hub listings to subscribe to, one partition for each."""


def listing_partition_key(resource: str) -> str:
    """The partition key of a listing.

    Args:
        resource: `projects/<project>/locations/<location>/dataExchanges/<exchange>/listings/<id>`.

    Raises:
        OctogenBigQueryInputError: `resource` is not the name of a listing.
    """
    name = ListingName.parse(resource)
    return f"{name.project}:{name.location}:{name.exchange}:{name.listing}"


def listing_of(partition_key: str) -> str:
    """The resource name of the listing of a partition key.

    Args:
        partition_key: A key of `listing_partition_key`. The project's id may contain a colon.

    Raises:
        OctogenBigQueryInputError: The key is not that of a listing.
    """
    parts = partition_key.rsplit(":", 3)
    try:
        return str(ListingName.parse(str(ListingName(*parts))))
    except (TypeError, OctogenBigQueryInputError):
        raise OctogenBigQueryInputError(
            f"Partition {partition_key!r} is not a listing: it has the form "
            "<project>:<location>:<exchange>:<listing>. Delete the partition, and add it again."
        ) from None


def shares_default_dataset(partition_key: str, keys: Iterable[str]) -> bool:
    """True if the listing of another partition has the same default dataset id.

    A listing that may be the same one, with the project named the other way, does not count.

    Args:
        partition_key: The partition key of a listing.
        keys: Partition keys; those of no listing are ignored.

    Raises:
        OctogenBigQueryInputError: The partition key is not that of a listing.
    """
    name = ListingName.parse(listing_of(partition_key))
    dataset_id = name.default_dataset_id
    for key in keys:
        with contextlib.suppress(OctogenBigQueryInputError):
            other = ListingName.parse(listing_of(key))
            if other.default_dataset_id == dataset_id and name.matches(other) is False:
                return True
    return False
