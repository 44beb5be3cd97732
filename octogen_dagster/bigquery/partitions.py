"""Partitions of Analytics Hub listings.

A listing's partition key is `<project>:<location>:<exchange>:<listing>`. It is parsed from the
right, without network or state.
"""

from __future__ import annotations

import dagster as dg

from octogen_dagster.errors import OctogenBigQueryInputError
from octogen_dagster.sharing.names import ListingName

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
    return str(listing_name(partition_key))


def listing_name(partition_key: str) -> ListingName:
    """The name of the listing of a partition key, as `listing_of`."""
    parts = partition_key.rsplit(":", 3)
    try:
        return ListingName.parse(str(ListingName(*parts)))
    except (TypeError, OctogenBigQueryInputError):
        raise OctogenBigQueryInputError(
            f"Partition {partition_key!r} is not a listing: it has the form "
            "<project>:<location>:<exchange>:<listing>. Delete the partition, and add it again."
        ) from None
