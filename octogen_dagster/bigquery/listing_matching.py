"""Match listings to existing partition keys; the project may appear by id or by number."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence

from octogen_dagster.bigquery.partitions import listing_of, listing_partition_key
from octogen_dagster.errors import OctogenBigQueryInputError
from octogen_dagster.sharing.listings import Listing
from octogen_dagster.sharing.resource_names import ListingName

_Candidates = dict[tuple[str, str, str], list[tuple[str, ListingName]]]
"""Partition keys and their listings, by what a listing's name is without its project."""


def match_partitions(
    listings: Sequence[Listing],
    known: Collection[str],
    same: Callable[[ListingName, ListingName], bool | None],
) -> tuple[dict[str, Listing], list[str]]:
    """Give each listing its partition key.

    A listing keeps the key of its existing partition when its source begins to name the project by
    number instead of by id, or the other way round.

    Args:
        listings: The listings of a source.
        known: Partition keys that exist.
        same: Returns True if two names are of one listing, None if that cannot be told.

    Returns:
        The listings by partition key, and the known keys that are not those of a listing.

    Raises:
        OctogenBigQueryError: Analytics Hub does not answer whether two names are of one listing.
    """
    by_key = {listing_partition_key(listing.resource): listing for listing in listings}
    candidates, invalid = _unlisted(set(known) - by_key.keys())
    if candidates:
        for key in [key for key in by_key if key not in known]:
            name = ListingName.parse(by_key[key].resource)
            existing = _take(candidates.get(name.without_project, []), name, same)
            if existing is not None:
                by_key[existing] = by_key.pop(key)
    return by_key, invalid


def _unlisted(keys: Iterable[str]) -> tuple[_Candidates, list[str]]:
    """Partition keys that no listing has as it is named now, and those that are no listing's."""
    candidates: defaultdict[tuple[str, str, str], list[tuple[str, ListingName]]]
    candidates = defaultdict(list)
    invalid = []
    for key in sorted(keys):
        try:
            name = ListingName.parse(listing_of(key))
        except OctogenBigQueryInputError:
            invalid.append(key)
        else:
            candidates[name.without_project].append((key, name))
    return candidates, invalid


def _take(
    candidates: list[tuple[str, ListingName]],
    name: ListingName,
    same: Callable[[ListingName, ListingName], bool | None],
) -> str | None:
    """Remove the partition of the same listing from the candidates; return its key."""
    for position, (key, candidate) in enumerate(candidates):
        if same(name, candidate):
            del candidates[position]
            return key
    return None
