"""The files of a history: reading them, and taking a bad snapshot out of them again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, time, timezone
from typing import Any
from urllib.parse import unquote

import polars as pl

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.history import (
    HISTORY_SCHEMA,
    Observed,
    as_of_time,
    forgotten,
    history_metadata,
    read_forgotten,
    read_observed,
)
from octogen_dagster.frames.io_source import io_source
from octogen_dagster.settings import did_you_mean
from octogen_dagster.store import Store, path_component, write_parquet

_MAX_OPEN_FILES = 256
"""Files whose frame does not change when they are replaced; those of a larger history are opened
when they are read."""
_MAX_NAMED = 10
_THREADS = 16


def scan_history(
    base_dir: str,
    *,
    asset: str,
    catalogs: Collection[str] | None = None,
    as_of: datetime | date | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> pl.LazyFrame:
    """Return the history of an asset's products as a LazyFrame.

    A row is a product with values that lasted from `valid_from` until before `valid_to`. The
    columns are those of `octogen_dagster.HISTORY_SCHEMA`. As of the time of a snapshot, the tracked
    columns (title, prices, currency, `in_stock`, `is_active`) are exactly those of the snapshot. As
    of a time between two snapshots they are those of the earlier one. Before the first snapshot
    nothing is known.

    Args:
        base_dir: The folder or bucket of `ParquetSnapshotIOManager`.
        asset: The key of an asset of `build_product_history_asset`, such as
            `octogen_products_history` or `prefix/octogen_products_history`.
        catalogs: The keys of the catalogs to read; None for all.
        as_of: Return the rows that were valid at this time only. A time without a time zone is of
            UTC, and a date is its first moment.
        storage_options: The storage options of `ParquetSnapshotIOManager`.

    Raises:
        OctogenSnapshotError: There is no such history, it has no such catalog, or its files cannot
            be read.
        ValueError: base_dir is empty or of an unknown kind, or an option is not known.
    """
    store = Store(base_dir, storage_options)
    files = history_files(store, asset, catalogs)
    pinned = len(files) <= _MAX_OPEN_FILES
    frames = [store.scan(key, pinned=pinned) for key in files.values()]
    if as_of is not None:
        moment = _moment(as_of)
        with ThreadPoolExecutor(_THREADS) as pool:
            observed = pool.map(lambda key: read_observed(store.metadata(key)), files.values())
        frames = [
            as_of_time(frame, moment, each) for frame, each in zip(frames, observed, strict=True)
        ]
    history = pl.concat(frames)
    if catalogs is not None and "" in files:
        history = history.filter(pl.col("catalog_key").is_in([*catalogs]))
    return history


def forget_snapshot(
    base_dir: str,
    fetched_at: datetime,
    *,
    asset: str,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Take a snapshot out of a history, so that the table is as if it had never been.

    Use it for a snapshot that was wrong, such as one with prices of another currency. The history
    does not take it in again, also if it is still the latest snapshot of its asset. A snapshot that
    was forgotten before is left out as it is.

    Args:
        base_dir: The folder or bucket of `ParquetSnapshotIOManager`.
        fetched_at: The `fetched_at` of the snapshot, as in `valid_from` and `valid_to`. A time
            without a time zone is of UTC.
        asset: The key of an asset of `build_product_history_asset`.
        storage_options: The storage options of `ParquetSnapshotIOManager`.

    Raises:
        OctogenSnapshotError: The history has no such snapshot, a run replaced its file meanwhile,
            or its files cannot be read or written.
        ValueError: base_dir is empty or of an unknown kind, or an option is not known.
    """
    store = Store(base_dir, storage_options)
    at = _moment(fetched_at)
    known: set[datetime] = set()
    for key in history_files(store, asset).values():
        metadata = store.metadata(key)
        observed = read_observed(metadata)
        known |= observed.keys() | read_forgotten(metadata)
        if at in observed:
            _forget(store, key, at, observed, metadata)
    if at not in known:
        newest = ", ".join(f"{each.isoformat()}" for each in sorted(known)[-_MAX_NAMED:])
        raise OctogenSnapshotError(
            f"No snapshot of {at.isoformat()} is in the history {asset}, so nothing was changed. "
            f"The last ones in it are of {newest or 'no time'}."
        )


def _forget(
    store: Store, key: str, at: datetime, observed: Observed, metadata: Mapping[str, str]
) -> None:
    history = store.scan(key)
    frame = io_source(HISTORY_SCHEMA, lambda _query, _stop: forgotten(history, at, observed))
    remaining = {time: each for time, each in observed.items() if time != at}
    changed = history_metadata(remaining, {*read_forgotten(metadata), at})
    with store.unfinished(key) as unfinished:
        write_parquet(frame, unfinished, lambda: {**metadata, **changed}, stop=lambda: None)
        if store.metadata(key) != metadata:
            raise OctogenSnapshotError(
                f"The history {store.uri(key)} was replaced by a run while the snapshot was taken "
                "out of it. Nothing was changed; forget the snapshot again."
            )
        store.publish(unfinished, key)


def history_files(
    store: Store, asset: str, catalogs: Collection[str] | None = None
) -> dict[str, str]:
    """Return the keys of a history's files in a store by the catalogs that they are of.

    A history that is not partitioned is one file, whose catalog is "".
    """
    folder = "/".join(map(path_component, asset.split("/")))
    if store.exists(f"{folder}.parquet"):
        return {"": f"{folder}.parquet"}
    found = {}
    for stored in store.files(folder):
        name = stored.key.removeprefix(f"{folder}/")
        if name.endswith(".parquet") and not name.startswith(".") and "/" not in name:
            # The name encodes the partition key, which encodes the catalog's key.
            found[unquote(unquote(name.removesuffix(".parquet")))] = stored.key
    if not found:
        raise OctogenSnapshotError(
            f"There is no history {asset} ({store.uri(folder)}). Materialize it first, or name "
            "the asset of build_product_history_asset with its prefix, as prefix/name."
        )
    if catalogs is None:
        return dict(sorted(found.items()))
    for catalog in catalogs:
        if catalog not in found:
            named = ", ".join(sorted(found)[:_MAX_NAMED])
            raise OctogenSnapshotError(
                f"The history {asset} has no catalog {catalog!r}."
                f"{did_you_mean(catalog, list(found))} It has {len(found):,} catalogs: {named}"
                f"{', …' if len(found) > _MAX_NAMED else ''}."
            )
    return {catalog: found[catalog] for catalog in catalogs}


def _moment(of: datetime | date) -> datetime:
    moment = of if isinstance(of, datetime) else datetime.combine(of, time())
    # Polars compares times of its own zone only, which a named zone is not.
    return moment.replace(tzinfo=moment.tzinfo or timezone.utc).astimezone(timezone.utc)
