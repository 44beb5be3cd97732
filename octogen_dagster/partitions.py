"""Partition keys of catalogs, and the path components that keys of any kind become.

A catalog's partition key is its Octogen key with the characters that Dagster or a path would
choke on percent-encoded, so it can be turned back without network or state.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

import dagster as dg

catalog_partitions = dg.DynamicPartitionsDefinition(name="octogen_catalogs")
"""The catalogs to snapshot, one partition for each."""

_LONGEST_COMPONENT = 200


def catalog_partition_key(catalog: str) -> str:
    """The partition key of a catalog.

    Raises:
        ValueError: The catalog key is empty.
    """
    if not catalog.strip():
        raise ValueError("A catalog key must not be empty.")
    return quote(catalog, safe="-_.~:@+=").replace("..", "%2E%2E")


def catalog_of(partition_key: str) -> str:
    """The catalog key of a partition key."""
    return unquote(partition_key)


def path_component(key: str) -> str:
    """A file or folder name for a key: reversible, and never a way out of its folder.

    Raises:
        ValueError: The key is empty or makes a name longer than file systems allow.
    """
    name = quote(key, safe="-_.~=@+ ")
    if name.startswith(".") or name.endswith("."):
        name = name.replace(".", "%2E")
    if not name or len(name) > _LONGEST_COMPONENT:
        raise ValueError(
            f"Key {key[:60]!r} cannot name a file: it must make a name of 1 to "
            f"{_LONGEST_COMPONENT} characters, and makes {len(name)}."
        )
    return name
