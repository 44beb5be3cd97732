"""Which partition a listing has: one that exists may name its project the other way."""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

from octogen_dagster.bigquery.partitions import listing_of, listing_partition_key
from octogen_dagster.errors import OctogenBigQueryInputError
from octogen_dagster.sharing.listings import Listing
from octogen_dagster.sharing.resource_names import ListingName


def match_partitions(
    listings: Sequence[Listing],
    known: Collection[str],
    same: Callable[[ListingName, ListingName], bool | None],
) -> tuple[dict[str, Listing], list[str]]:
    """The listings by partition key, and the known keys that are of no listing.

    A listing whose project is now named by its number, or no longer is, keeps the key it had.

    Args:
        listings: What the source says.
        known: Partition keys that exist.
        same: Whether two names are of one listing; None if that cannot be told.

    Raises:
        OctogenBigQueryError: It cannot be said whether two names are of one listing.
    """
    by_key = {listing_partition_key(listing.resource): listing for listing in listings}
    others: defaultdict[tuple[str, str, str], list[tuple[str, ListingName]]] = defaultdict(list)
    odd = []
    for key in sorted(set(known) - by_key.keys()):
        try:
            name = ListingName.parse(listing_of(key))
        except OctogenBigQueryInputError:
            odd.append(key)
        else:
            others[name.without_project].append((key, name))
    for key in [key for key in by_key if key not in known] if others else ():
        name = ListingName.parse(by_key[key].resource)
        namesakes = others[name.without_project]
        for its_key, namesake in namesakes:
            if same(name, namesake):
                by_key[its_key] = by_key.pop(key)
                namesakes.remove((its_key, namesake))
                break
    return by_key, odd
