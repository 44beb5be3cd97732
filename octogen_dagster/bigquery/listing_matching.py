"""Match listings to existing partition keys; the project may appear by id or by number."""

from collections.abc import Collection, Iterable

from octogen_dagster.bigquery.partitions import listing_name, listing_partition_key
from octogen_dagster.errors import OctogenBigQueryInputError
from octogen_dagster.sharing.hub import Listing


def match_partitions(
    listings: Iterable[Listing], known: Collection[str]
) -> tuple[dict[str, Listing], list[str]]:
    """Give each listing its partition key, which it keeps when its project is named another way.

    Returns:
        The listings by partition key, and the known keys that are not those of a listing.
    """
    partitions: dict[tuple[str, str, str], str] = {}
    invalid = []
    for key in sorted(known):
        try:
            partitions.setdefault(listing_name(key).key, key)
        except OctogenBigQueryInputError:
            invalid.append(key)
    by_key = {}
    for listing in listings:
        key = listing_partition_key(str(listing.name))
        by_key[key if key in known else partitions.get(listing.name.key, key)] = listing
    return by_key, invalid
