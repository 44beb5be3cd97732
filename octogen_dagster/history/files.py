"""scan_history and forget_snapshot: read stored histories, and remove bad snapshots from them."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from datetime import date, datetime
from typing import Any
from urllib.parse import unquote

import polars as pl

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.history.observed import OBSERVED, Contents, digest_of, read_observed
from octogen_dagster.history.table import take_out, valid_at
from octogen_dagster.history.tracking import TRACKING, Tracking, fitted
from octogen_dagster.io_source import Query, io_source, until_stopped
from octogen_dagster.printable import count
from octogen_dagster.storage.store import Store, asset_path, write_parquet
from octogen_dagster.validation import did_you_mean, moment_of

_MAX_NAMED = 10


def scan_history(
    base_dir: str,
    *,
    asset: str,
    catalogs: Collection[str] | None = None,
    as_of: datetime | date | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> pl.LazyFrame:
    """Read a stored history as a LazyFrame.

    Each row contains a product's values from `valid_from` until just before `valid_to`.
    `octogen_dagster.schemas.HISTORY_SCHEMA` lists the columns. At the time of a snapshot, the
    tracked columns (title, prices, currency, `in_stock`, `is_active`) have exactly the snapshot's
    values. Between two snapshots, the columns have the values of the earlier snapshot. Before the
    first snapshot, there are no rows.

    Args:
        base_dir: The `base_dir` of the `ParquetSnapshotIOManager`.
        asset: The history's asset key, such as `octogen_products_history` or
            `prefix/octogen_products_history`.
        catalogs: The catalog keys to read. Defaults to all catalogs.
        as_of: Return only the rows valid at this time. Times without a time zone are UTC, and a
            date means midnight UTC.
        storage_options: The `storage_options` of the `ParquetSnapshotIOManager`.

    Raises:
        OctogenSnapshotError: The history or the catalog does not exist, or a file cannot be read.
        ValueError: `base_dir` is empty or not supported, or a storage option is unknown.
    """
    store = Store(base_dir, storage_options)
    files = history_files(store, asset, catalogs)
    history = store.scan_together(files)
    if as_of is not None:
        history = history.filter(valid_at(moment_of(as_of)))
    if catalogs is not None and "" in files:
        key = pl.col("catalog_key").str.to_lowercase()
        history = history.filter(key.is_in([catalog.lower() for catalog in catalogs]))
    return history


def forget_snapshot(
    base_dir: str,
    fetched_at: datetime,
    *,
    asset: str,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Remove a snapshot from a history, as if it had never been added.

    URL spellings, brands and categories that came from the snapshot are kept. Use this function to
    remove a bad snapshot, for example one with prices in the wrong currency, or to clear a warning
    about a snapshot that was left out. Later runs do not add the snapshot again, even if it is
    still the asset's latest snapshot, unless different products are stored with the same
    `fetched_at`.

    Args:
        base_dir: The `base_dir` of the `ParquetSnapshotIOManager`.
        fetched_at: The snapshot's `fetched_at`, as in `valid_from` and `valid_to`. Times without a
            time zone are UTC.
        asset: The history's asset key.
        storage_options: The `storage_options` of the `ParquetSnapshotIOManager`.

    Raises:
        OctogenSnapshotError: The history has no such snapshot, a run replaced the file at the same
            time, or a file cannot be read or written.
        ValueError: `base_dir` is empty or not supported, or a storage option is unknown.
    """
    store = Store(base_dir, storage_options)
    at, files = moment_of(fetched_at), history_files(store, asset)
    known = set[datetime]().union(*(_forget(store, key, at) for key in files.values()))
    if at not in known:
        newest = ", ".join(f"{each.isoformat()}" for each in sorted(known)[-_MAX_NAMED:])
        raise OctogenSnapshotError(
            f"The history {asset} was not changed, because it has no snapshot from "
            f"{at.isoformat()}. "
            + (f"Its latest snapshots: {newest}." if newest else "It has no snapshots.")
        )


def _forget(store: Store, key: str, at: datetime) -> set[datetime]:
    """Remove a snapshot from a history file, if the file contains the snapshot.

    Return the times of all snapshots that were recorded in the file before.
    """
    version, metadata = store.version(key), store.metadata(key)
    history, contents = store.scan(key), Contents.read(metadata)
    tracking = Tracking.read(metadata, history)
    history = fitted(history, tracking.schema)
    observed, left_out = {**contents.observed}, {each.fetched_at for each in contents.left_out}
    known = {*observed, *contents.forgotten, *filter(None, left_out)}
    if at not in observed and at not in left_out:
        return known
    contents.forgotten[at] = ""
    if at in observed:
        snapshot = history.filter(valid_at(at), observed[at].is_covered)
        contents.forgotten[at] = digest_of(snapshot, tracking)
        del contents.observed[at]
    contents.left_out = [each for each in contents.left_out if each.fetched_at != at]

    def frames(_query: Query, stop: threading.Event) -> Iterator[pl.DataFrame]:
        return until_stopped(take_out(history, at, observed, tracking), stop)

    stop = threading.Event()
    frame = io_source(tracking.schema, frames, stop) if at in observed else history
    with store.unfinished(key) as unfinished:
        write_parquet(frame, unfinished, lambda: {**metadata, **contents.metadata()}, stop)
        store.publish_if(version, unfinished, key)
    return known


def history_files(
    store: Store,
    asset: str,
    catalogs: Collection[str] | None = None,
    *,
    of_products: bool = False,
) -> dict[str, str]:
    """Map a history's catalogs to the storage keys of their files.

    An unpartitioned history has the catalog "". If `of_products` is true, raise an error unless the
    history is a product history.
    """
    folder = asset_path(asset)
    whole, found = f"{folder}.parquet", _catalog_files(store, folder)
    if isinstance(catalogs, str):
        raise TypeError(f"`catalogs` must be a list of catalog keys, such as [{catalogs!r}].")
    if store.exists(whole):
        # The folder can also hold assets whose key prefix is the history's name.
        if any(OBSERVED in store.metadata(key) for key in found.values()):
            raise OctogenSnapshotError(
                f"The history {asset} exists both as one file, {store.uri(whole)}, and as "
                f"partitions in {store.uri(folder)}, because its partitioning was changed. Delete "
                "or move the copy that is no longer updated."
            )
        _require_history(store, asset, whole, of_products=of_products)
        if catalogs is not None:
            _require_catalogs(asset, catalogs, _catalogs_in(store, whole))
        return {"": whole}
    if not found:
        raise OctogenSnapshotError(
            f"The history {asset} does not exist at {store.uri(folder)}. Materialize it first, or "
            "pass the full asset key, such as prefix/octogen_products_history."
        )
    first = next(iter(found.values()))
    _require_history(store, asset, first, of_products=of_products)
    if catalogs is None:
        return dict(sorted(found.items()))
    _require_catalogs(asset, catalogs, found)
    return {catalog: found.get(catalog) or found[catalog.lower()] for catalog in catalogs}


def _catalog_files(store: Store, folder: str) -> dict[str, str]:
    """Map the catalogs of a partitioned asset to the storage keys of their files."""
    found = {}
    for stored in store.files(folder):
        name = stored.key.removeprefix(f"{folder}/")
        if name.endswith(".parquet") and not name.startswith(".") and "/" not in name:
            # The file name encodes the partition key, which encodes the catalog key.
            found[unquote(unquote(name.removesuffix(".parquet")))] = stored.key
    return found


def _require_history(store: Store, asset: str, key: str, *, of_products: bool) -> None:
    metadata = store.metadata(key)
    if OBSERVED not in metadata:
        raise OctogenSnapshotError(
            f"The asset {asset} is not a history, because {store.uri(key)} has no history "
            f"metadata. Pass a history's asset key, such as {asset}_history."
        )
    read_observed(metadata)
    if of_products and TRACKING in metadata:
        raise OctogenSnapshotError(
            f"{asset} is not a product history. Read it with scan_history, or pass the key of an "
            "asset built by build_product_history_asset."
        )


def _catalogs_in(store: Store, key: str) -> set[str]:
    """Return the lowercase keys of the catalogs in an unpartitioned history."""
    frame, metadata = store.open(key)
    if "catalog_key" not in frame.collect_schema():
        return set()
    catalog = pl.col("catalog_key").drop_nulls().str.to_lowercase().unique()
    in_rows = frame.select(catalog).collect(engine="streaming").to_series()
    return {*in_rows}.union(*(each.catalogs or () for each in read_observed(metadata).values()))


def _require_catalogs(asset: str, catalogs: Collection[str], known: Collection[str]) -> None:
    for catalog in catalogs:
        if catalog not in known and catalog.lower() not in known:
            named = ", ".join(sorted(filter(None, known))[:_MAX_NAMED])
            raise OctogenSnapshotError(
                f"The history {asset} has no catalog {catalog!r}."
                f"{did_you_mean(catalog, list(known))} The history contains "
                f"{count(len(known), 'catalog')}: "
                f"{named}{', …' if len(known) > _MAX_NAMED else ''}."
            )
