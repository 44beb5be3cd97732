"""The data version of a snapshot. It stays while the rows do, so that nothing is made for nothing.

    content_of → a digest of the rows, a tag of the materialization → version_of

The version of a catalog is the one in which its present rows were first read. That a later one has
the same rows is observed, so that the sensor of catalogs knows that it was read.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import NamedTuple

import polars as pl

from octogen_dagster.assets.latest import CHANGED_TAG, DATA_VERSION_TAG

_CONTENT_TAG = "octogen/content"
_OF_EACH_READ = ("fetched_at", "exported_at", "updated_at", "display_match_score", "raw_score")
"""The columns that differ in each read, or each time that a catalog is indexed."""
_DEAR = ("images",)
"""The columns that would double the time of a digest; `image_url` has the first of them."""


class SnapshotVersion(NamedTuple):
    """The data version of a snapshot, and the tags of its materialization besides it.

    `same_in` is a later version of the catalog with the same rows.
    """

    data_version: str
    tags: Mapping[str, str]
    same_in: str | None = None


def content_of(rows: pl.LazyFrame) -> str:
    """A digest of rows in any order, without the columns that differ in each read."""
    schema = rows.collect_schema()
    columns = [name for name in schema if name not in (*_OF_EACH_READ, *_DEAR)]
    # The hash of a struct that is nested takes twice as long as that of the hashes of its columns.
    row = pl.struct(pl.col(name).hash() for name in columns).hash()
    found = rows.select(pl.len(), row.sum().alias("sum")).collect(engine="streaming").row(0)
    return hashlib.sha256(f"{schema} {found}".encode()).hexdigest()[:32]


def version_of(
    rows: pl.LazyFrame, version: str | None, last_tags: Mapping[str, str]
) -> SnapshotVersion:
    """The version of rows: that of the last materialization, whose tags these are, if it had them.

    Otherwise it is `version`, which is that of their catalog, or a digest of them.
    """
    content = content_of(rows)
    if last_tags.get(_CONTENT_TAG) == content:
        kept = last_tags[DATA_VERSION_TAG]
        tags = {name: last_tags[name] for name in (_CONTENT_TAG, CHANGED_TAG)}
        return SnapshotVersion(kept, tags, None if version == kept else version)
    changed_at = int(datetime.now(timezone.utc).timestamp())
    return SnapshotVersion(
        version or content, {_CONTENT_TAG: content, CHANGED_TAG: str(changed_at)}
    )
