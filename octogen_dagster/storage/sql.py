"""SQL over the snapshots of a store: each asset is a table."""

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
"""The beginning of what Polars adds to an error about its plan of the query."""


def list_tables(store: Store) -> pl.DataFrame:
    """Return the name, the number of rows and the columns of each table."""
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
    """Return the rows of a query, or the first of them."""
    word = (_FIRST_WORD.match(query) or [""] * 2)[1]
    if word.lower() not in _READS:
        raise ValueError(
            f"{word or 'The query'} is not a SELECT. Only reading is supported: begin the query "
            "with SELECT, WITH or FROM."
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
        f"There is no table {name!r} in {store.base_dir}.{did_you_mean(name, names)} The tables "
        f"are {some}."
    )


def _nothing_stored(store: Store) -> OctogenSnapshotError:
    return OctogenSnapshotError(
        f"No snapshot is stored in {store.base_dir}. Materialize an asset first, or name another "
        "folder or bucket."
    )


def _frames(store: Store, query: str | None = None) -> dict[str, pl.LazyFrame]:
    """The rows of each asset; with partitions the key of each is in a column."""
    frames = {}
    for asset, files in _files(store, query).items():
        if "" not in files:
            frames[asset] = store.scan_together(files, _with_partition)
        elif len(files) == 1:
            frames[asset] = store.scan(files[""])
        else:
            raise OctogenSnapshotError(
                f"The asset {asset} is stored twice: as the file {store.uri(files[''])} and in "
                "partitions. Move away the files that its runs no longer write."
            )
    return frames


def _with_partition(partition: str, frame: pl.LazyFrame) -> pl.LazyFrame:
    if _PARTITION in frame.collect_schema():
        return frame
    return frame.with_columns(pl.lit(partition).alias(_PARTITION))


def _files(store: Store, query: str | None = None) -> dict[str, Mapping[str, str]]:
    """The files of each asset by partition, "" without one; only of those that a query names."""
    keys = [
        each.key
        for each in store.files("")
        if each.key.endswith(".parquet") and not re.search(r"(^|/)\.", each.key)
        if query is None or any(_is_named(name, query) for name in _possible_names(each.key))
    ]
    found = defaultdict[str, dict[str, str]](dict)
    with ThreadPoolExecutor(MAX_REQUESTS, "octogen-sql") as pool:
        for key, metadata in zip(keys, pool.map(store.metadata, keys), strict=True):
            asset = metadata.get(ASSET_KEY)  # other files are not of an asset
            if asset and (query is None or _is_named(asset, query)):
                found[asset][metadata.get(PARTITION_KEY, "")] = key
    return {asset: dict(sorted(files.items())) for asset, files in sorted(found.items())}


def _possible_names(key: str) -> list[str]:
    """The assets that a file may be of: its path tells no prefix from a partition."""
    parts = [unquote(part) for part in key.removesuffix(".parquet").split("/")]
    return ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]


def _is_named(asset: str, query: str) -> bool:
    """True if a query has the name, and not only as a part of another one."""
    return asset in query and bool(re.search(rf"(?<![\w/]){re.escape(asset)}(?![\w/])", query))
