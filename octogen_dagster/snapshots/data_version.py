"""The data version of a snapshot, which stays as long as its rows do: Dagster then wakes nobody.

    content_of → a digest of the rows, a tag of the materialization → snapshot_version

The version of a catalog is the one in which its present rows were first read. That a later one has
the same rows is observed, so that the sensor of catalogs knows that it was read.
"""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import polars as pl

from octogen_dagster.assets.latest import DATA_VERSION_TAG, READ_AGAIN, catalog_version
from octogen_dagster.frames.source import CATALOGS, SELECTION

_CONTENT_TAG = "octogen/content"
_SEARCHED = ("octogen.search", CATALOGS, SELECTION)
"""The file metadata that says which rows there may be: a history ends those that are not."""


class SnapshotVersion(NamedTuple):
    """The data version of a snapshot, and the tags of its materialization besides it.

    `same_in` is a later version of the catalog with the same rows.
    """

    data_version: str
    tags: Mapping[str, str]
    same_in: str | None = None


def content_of(
    rows: pl.LazyFrame, file_metadata: Mapping[str, str], volatile: Collection[str] = ()
) -> str:
    """Return a digest of rows in any order, without the volatile columns of their kind."""
    schema = rows.collect_schema()
    columns = [_hashable(name, dtype) for name, dtype in schema.items() if name not in volatile]
    # The hash of a struct that is nested takes twice as long as that of the hashes of its columns.
    row = pl.struct(pl.lit(0), *(column.hash() for column in columns)).hash()
    found = rows.select(pl.len(), row.sum().alias("sum")).collect(engine="streaming").row(0)
    searched = [file_metadata.get(name) for name in _SEARCHED]
    return hashlib.sha256(f"{schema} {found} {searched}".encode()).hexdigest()[:32]


def _hashable(name: str, dtype: pl.DataType) -> pl.Expr:
    """Return a column with its categories as text: Polars hashes nested ones by their codes."""
    as_text = _categories_as_text(dtype)
    return pl.col(name) if as_text == dtype else pl.col(name).cast(as_text)


def _categories_as_text(dtype: Any) -> Any:
    """Return a type with text in place of the categories at any depth."""
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
    """A data version of a catalog's version that no other run has."""
    return f"{version}{READ_AGAIN}{run_id}" if version else f"{run_id}"


def snapshot_version(
    content: str,
    version: str,
    last_tags: Mapping[str, str],
    *,
    may_stay: bool,
    run_id: str | None,
) -> SnapshotVersion:
    """The version of rows with a digest: that of the last materialization, if it had them.

    Otherwise it is `version`, which is that of their catalog, or the digest; with the run where the
    last one has it already. It may not stay if the file is not the one that was reported.
    """
    last = last_tags.get(DATA_VERSION_TAG, "")
    tags = {_CONTENT_TAG: content}
    if may_stay and last_tags.get(_CONTENT_TAG) == content:
        is_later = version not in ("", catalog_version(last))
        return SnapshotVersion(last, tags, version if is_later else None)
    data_version = version or content
    if data_version == catalog_version(last):
        data_version = of_run(data_version, run_id)
    return SnapshotVersion(data_version, tags)
