"""Computes a snapshot's data version, which changes only if the rows change.

    content_of → the rows' digest, stored as a materialization tag → snapshot_version

A snapshot with unchanged rows triggers no downstream assets. Its data version is the catalog
version in which the rows were first read. If a later catalog version has the same rows, an
observation reports that version to the catalog sensor.
"""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import polars as pl

from octogen_dagster.assets.latest import DATA_VERSION_TAG, READ_AGAIN, catalog_version
from octogen_dagster.frames.source import CATALOGS, SELECTION

_CONTENT_TAG = "octogen/content"
_SEARCHED = ("octogen.search", CATALOGS, SELECTION)
"""Keys in the file metadata that describe which rows were requested."""


class SnapshotVersion(NamedTuple):
    """A snapshot's data version, and additional tags for its materialization.

    `unchanged_in` is a later catalog version with the same rows.
    """

    data_version: str
    tags: Mapping[str, str]
    unchanged_in: str | None = None


def content_of(
    rows: pl.LazyFrame, file_metadata: Mapping[str, str], volatile: Collection[str] = ()
) -> str:
    """Return an order-independent digest of the rows, without volatile columns."""
    schema = rows.collect_schema()
    columns = [_hashable(name, dtype) for name, dtype in schema.items() if name not in volatile]
    # Hashing a nested struct takes twice as long as hashing the hashes of its columns.
    row = pl.struct(pl.lit(0), *(column.hash() for column in columns)).hash()
    found = rows.select(pl.len(), row.sum().alias("sum")).collect(engine="streaming").row(0)
    searched = [file_metadata.get(name) for name in _SEARCHED]
    return hashlib.sha256(f"{schema} {found} {searched}".encode()).hexdigest()[:32]


def _hashable(name: str, dtype: pl.DataType) -> pl.Expr:
    """Cast categories to text, because Polars hashes nested categories by their codes."""
    as_text = _categories_as_text(dtype)
    return pl.col(name) if as_text == dtype else pl.col(name).cast(as_text)


def _categories_as_text(dtype: Any) -> Any:
    """Replace categorical types with strings at any depth."""
    if isinstance(dtype, pl.Categorical):
        return pl.String()
    if isinstance(dtype, pl.List):
        return pl.List(_categories_as_text(dtype.inner))
    if isinstance(dtype, pl.Array):
        return pl.Array(_categories_as_text(dtype.inner), dtype.size)
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _categories_as_text(field.dtype) for field in dtype.fields})
    return dtype


def of_run(version: str, run_id: str | None) -> str:
    """Return a data version that is unique to a run."""
    return f"{version}{READ_AGAIN}{run_id}" if version else f"{run_id}"


def snapshot_version(
    content: str,
    version: str,
    last_tags: Mapping[str, str],
    *,
    is_stored: bool,
    run_id: str | None,
) -> SnapshotVersion:
    """Return a snapshot's data version and tags.

    `is_stored` is True if the latest materialization reported the stored file. In that case, the
    data version is kept if the content has not changed. Otherwise, the data version is the
    catalog's `version`, or the content digest if the catalog has no version. If the latest
    materialization already has this data version, the run ID is appended.
    """
    last = last_tags.get(DATA_VERSION_TAG, "")
    tags = {_CONTENT_TAG: content}
    if is_stored and last_tags.get(_CONTENT_TAG) == content:
        is_later = version not in ("", catalog_version(last))
        return SnapshotVersion(last, tags, version if is_later else None)
    data_version = version or content
    if data_version == catalog_version(last):
        data_version = of_run(data_version, run_id)
    return SnapshotVersion(data_version, tags)
