"""The files of a history: reading them, and taking a bad snapshot out of them again."""

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
    """Return the history of an asset's products as a LazyFrame.

    A row is a product with values that lasted from `valid_from` until before `valid_to`. The
    columns are those of `octogen_dagster.schemas.HISTORY_SCHEMA`. As of the time of a snapshot, the
    tracked columns (title, prices, currency, `in_stock`, `is_active`) are exactly those of the
    snapshot. As of a time between two snapshots they are those of the earlier one. Before the first
    snapshot nothing is known.

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
    """Take a snapshot out of a history, so that the table is as if it had never been.

    Only the spelling of a `product_url`, the brand and the category stay the newest ones that were
    known. Use it for a snapshot that was wrong, such as one with prices of another currency, or to
    no longer be told of one that was left out. The history does not take it in again, also if it is
    still the latest snapshot of its asset, until it is stored with other products under the same
    `fetched_at`. A snapshot that was forgotten before is left out as it is.

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
    at, files = moment_of(fetched_at), history_files(store, asset)
    known = set[datetime]().union(*(_forget(store, key, at) for key in files.values()))
    if at not in known:
        newest = ", ".join(f"{each.isoformat()}" for each in sorted(known)[-_MAX_NAMED:])
        raise OctogenSnapshotError(
            f"No snapshot of {at.isoformat()} is in the history {asset}, so nothing was changed. "
            f"The last ones in it are of {newest or 'no time'}."
        )


def _forget(store: Store, key: str, at: datetime) -> set[datetime]:
    """Take a snapshot out of a file, and return the times of all that the file knows."""
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
    """Return the keys of a history's files in a store by the catalogs that they are of.

    A history that is not partitioned is one file, whose catalog is "". With `of_products` one of
    another table is refused.
    """
    folder = asset_path(asset)
    whole, found = f"{folder}.parquet", _catalog_files(store, folder)
    if isinstance(catalogs, str):
        raise TypeError(f"catalogs is a list of keys, not a text: give [{catalogs!r}].")
    if store.exists(whole):
        # Files of other assets may be in the folder: those with its name as their prefix.
        if any(OBSERVED in store.metadata(key) for key in found.values()):
            raise OctogenSnapshotError(
                f"The history {asset} is there twice: as the file {store.uri(whole)}, from before "
                f"or after it had partitions, and as the files in {store.uri(folder)}. Move away "
                "the one that its runs do not write any more."
            )
        _require_history(store, asset, whole, of_products=of_products)
        if catalogs is not None:
            _require_catalogs(asset, catalogs, _catalogs_in(store, whole))
        return {"": whole}
    if not found:
        raise OctogenSnapshotError(
            f"There is no history {asset} ({store.uri(folder)}). Materialize it first, or name "
            "the asset of build_product_history_asset with its prefix, as prefix/name."
        )
    first = next(iter(found.values()))  # all are of one kind
    _require_history(store, asset, first, of_products=of_products)
    if catalogs is None:
        return dict(sorted(found.items()))
    _require_catalogs(asset, catalogs, found)
    return {catalog: found.get(catalog) or found[catalog.lower()] for catalog in catalogs}


def _catalog_files(store: Store, folder: str) -> dict[str, str]:
    """Return the keys of the files in the folder of an asset by the catalogs that they are of."""
    found = {}
    for stored in store.files(folder):
        name = stored.key.removeprefix(f"{folder}/")
        if name.endswith(".parquet") and not name.startswith(".") and "/" not in name:
            # The name encodes the partition key, which encodes the catalog's key.
            found[unquote(unquote(name.removesuffix(".parquet")))] = stored.key
    return found


def _require_history(store: Store, asset: str, key: str, *, of_products: bool) -> None:
    metadata = store.metadata(key)
    if OBSERVED not in metadata:
        raise OctogenSnapshotError(
            f"The asset {asset} is not a history: {store.uri(key)} does not say which snapshots "
            f"are in it. Name the asset of build_product_history_asset, such as {asset}_history."
        )
    read_observed(metadata)
    if of_products and TRACKING in metadata:
        raise OctogenSnapshotError(
            f"The history {asset} is of a table of your own, and not of products. Read it by "
            "scan_history, or name the asset of build_product_history_asset."
        )


def _catalogs_in(store: Store, key: str) -> set[str]:
    """The catalogs in a history of many, in lower case."""
    frame, metadata = store.open(key)
    if "catalog_key" not in frame.collect_schema():
        return set()
    catalog = pl.col("catalog_key").drop_nulls().str.to_lowercase().unique()
    in_rows = frame.select(catalog).collect(engine="streaming").to_series()
    return {*in_rows}.union(*(each.catalogs or () for each in read_observed(metadata).values()))


def _require_catalogs(asset: str, catalogs: Collection[str], known: Collection[str]) -> None:
    """Require catalogs among those of a history; those of a history of many are in lower case."""
    for catalog in catalogs:
        if catalog not in known and catalog.lower() not in known:
            named = ", ".join(sorted(filter(None, known))[:_MAX_NAMED])
            raise OctogenSnapshotError(
                f"The history {asset} has no catalog {catalog!r}."
                f"{did_you_mean(catalog, list(known))} It has {count(len(known), 'catalog')}: "
                f"{named}{', …' if len(known) > _MAX_NAMED else ''}."
            )
