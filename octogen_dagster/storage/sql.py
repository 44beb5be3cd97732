"""Runs SQL queries on the snapshots in a store. Each asset is a table."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote

import polars as pl

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.io_source import errors_as_raised
from octogen_dagster.storage.store import ASSET_KEY, MAX_REQUESTS, PARTITION_KEY, Store
from octogen_dagster.validation import did_you_mean

_PARTITION = "partition"
_MAX_NAMED = 10
_FIRST_WORD = re.compile(r"(?:\s|\(|--[^\n]*|/\*.*?\*/)*(\w*)", re.DOTALL)
_READS = {"select", "with", "from", "values", "explain"}
_NO_TABLE = re.compile(r"relation '(.*)' was not found")
_DETAILS = re.compile(r"\n\n(?:Resolved plan|This error occurred)")
"""Matches the start of the query plan in a Polars error."""


def list_tables(store: Store) -> pl.DataFrame:
    """Return each table's name, row count and columns."""
    frames = _frames(store)
    if not frames:
        raise _nothing_stored(store)
    counts = pl.collect_all([frame.select(pl.len()) for frame in frames.values()])
    return pl.DataFrame(
        {
            "table": list(frames),
            "rows": [count.item() for count in counts],
            "columns": [frame.collect_schema().names() for frame in frames.values()],
        }
    )


def query_tables(store: Store, query: str, limit: int | None = None) -> pl.DataFrame:
    """Run a query and return all its rows, or only the first `limit` rows."""
    word = (_FIRST_WORD.match(query) or [""] * 2)[1]
    if word.lower() not in _READS:
        raise ValueError(
            f"{word or 'The query'} is not a SELECT statement. Queries are read-only, so start the "
            "query with SELECT, WITH or FROM."
        )
    frames = _frames(store, query)
    try:
        with errors_as_raised():
            found = pl.SQLContext(frames=frames).execute(query)
            rows = (found if limit is None else found.head(limit)).collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        if missing := _NO_TABLE.search(str(error)):
            raise _no_table(store, missing[1]) from error
        reason = " ".join(_DETAILS.split(str(error))[0].split())
        raise ValueError(f"Polars cannot run the query: {reason}") from error
    return rows.with_columns(pl.col(pl.Binary).bin.encode("hex"))


def _no_table(store: Store, name: str) -> Exception:
    names = list(_files(store))
    if not names:
        return _nothing_stored(store)
    some = ", ".join(names[:_MAX_NAMED]) + (", …" if len(names) > _MAX_NAMED else "")
    return ValueError(
        f"{store.base_dir} has no table {name!r}.{did_you_mean(name, names)} Available tables: "
        f"{some}."
    )


def _nothing_stored(store: Store) -> OctogenSnapshotError:
    return OctogenSnapshotError(
        f"{store.base_dir} has no snapshots. Materialize an asset first, or pass another folder or "
        "bucket."
    )


def _frames(store: Store, query: str | None = None) -> dict[str, pl.LazyFrame]:
    """Return each asset's rows, with a `partition` column for partitioned assets."""
    frames = {}
    for asset, files in _files(store, query).items():
        if "" not in files:
            frames[asset] = store.scan_together(files, _with_partition)
        elif len(files) == 1:
            frames[asset] = store.scan(files[""])
        else:
            raise OctogenSnapshotError(
                f"The asset {asset} is stored both as {store.uri(files[''])} and in partitions. "
                "Move whichever is outdated, this file or the partitions, to another folder."
            )
    return frames


def _with_partition(partition: str, frame: pl.LazyFrame) -> pl.LazyFrame:
    if _PARTITION in frame.collect_schema():
        return frame
    return frame.with_columns(pl.lit(partition).alias(_PARTITION))


def _files(store: Store, query: str | None = None) -> dict[str, Mapping[str, str]]:
    """Return the files of each asset that a query mentions, by partition key.

    The key is empty if the asset is not partitioned. If `query` is None, return all assets' files.
    """
    keys = [
        each.key
        for each in store.files("")
        if each.key.endswith(".parquet") and not re.search(r"(^|/)\.", each.key)
        if query is None or any(_is_named(name, query) for name in _possible_names(each.key))
    ]
    found = defaultdict[str, dict[str, str]](dict)
    with ThreadPoolExecutor(MAX_REQUESTS, "octogen-sql") as pool:
        for key, metadata in zip(keys, pool.map(store.metadata, keys), strict=True):
            asset = metadata.get(ASSET_KEY)  # other files do not belong to an asset
            if asset and (query is None or _is_named(asset, query)):
                found[asset][metadata.get(PARTITION_KEY, "")] = key
    return {asset: dict(sorted(files.items())) for asset, files in sorted(found.items())}


def _possible_names(key: str) -> list[str]:
    """Return every asset key that could match a file's path.

    The last parts of a path can be partition keys.
    """
    parts = [unquote(part) for part in key.removesuffix(".parquet").split("/")]
    return ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]


def _is_named(asset: str, query: str) -> bool:
    """True if a query contains the name as a whole word."""
    return asset in query and bool(re.search(rf"(?<![\w/]){re.escape(asset)}(?![\w/])", query))
