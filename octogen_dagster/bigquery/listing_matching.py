"""Match listings to existing partition keys; the project may appear by id or by number."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence

from octogen_dagster.bigquery.partitions import listing_of, listing_partition_key
from octogen_dagster.errors import OctogenBigQueryInputError
from octogen_dagster.sharing.listings import Listing
from octogen_dagster.sharing.resource_names import ListingName

_Partitions = defaultdict[tuple[str, str, str], list[tuple[str, ListingName]]]
"""Partition keys and their listings, by what a listing's name is without its project."""


def match_partitions(
    listings: Sequence[Listing],
    known: Collection[str],
    same: Callable[[ListingName, ListingName], bool | None],
) -> tuple[dict[str, Listing], list[str]]:
    """Give each listing its partition key.

    A listing keeps the key of its existing partition when its source begins to name the project by
    number instead of by id, or the other way round. A listing that has both names has one key.

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
    unlisted, invalid = _unlisted(set(known) - by_key.keys())
    new = [key for key in by_key if key not in known]
    listed: _Partitions = defaultdict(list)
    for key in by_key.keys() - set(new) if new else ():
        name = ListingName.parse(by_key[key].resource)
        listed[name.without_project].append((key, name))
    for key in new:
        name = ListingName.parse(by_key[key].resource)
        if any(same(name, other) for _, other in listed[name.without_project]):
            del by_key[key]
            continue
        partition = _take(unlisted[name.without_project], name, same) or (key, name)
        by_key[partition[0]] = by_key.pop(key)
        listed[name.without_project].append(partition)
    return by_key, invalid


def _unlisted(keys: Iterable[str]) -> tuple[_Partitions, list[str]]:
    """Partitions that no listing has as it is named now, and the keys that are no listing's."""
    partitions: _Partitions = defaultdict(list)
    invalid = []
    for key in sorted(keys):
        try:
            name = ListingName.parse(listing_of(key))
        except OctogenBigQueryInputError:
            invalid.append(key)
        else:
            partitions[name.without_project].append((key, name))
    return partitions, invalid


def _take(
    partitions: list[tuple[str, ListingName]],
    name: ListingName,
    same: Callable[[ListingName, ListingName], bool | None],
) -> tuple[str, ListingName] | None:
    """Remove the partition of the same listing, and return it.

    If these credentials may not see the listing yet, a name that differs only in the project's id
    or number is taken for the same: a second partition would stay after the grant.
    """
    answers = [(same(name, partition[1]), partition) for partition in partitions]
    for wanted in (True, None):
        for answer, partition in answers:
            if answer is wanted:
                partitions.remove(partition)
                return partition
    return None
