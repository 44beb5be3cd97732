"""The builder of the history of products, and what puts snapshots into it."""

import contextlib
import json
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster.api.search import ProductSearch
from octogen_dagster.asset_definition import asset_arguments_of, require_asset
from octogen_dagster.automation import wait_only_for_latest
from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.changes import SnapshotPair
from octogen_dagster.frames.history import HISTORY_SCHEMA, put_in
from octogen_dagster.frames.io_source import Query, check, io_source, until_stopped
from octogen_dagster.frames.observed import (
    OBSERVED,
    Observation,
    SnapshotTimes,
    StoredSnapshot,
    history_metadata,
    observation_of,
    read_forgotten,
    read_observed,
    tracked_products,
)
from octogen_dagster.frames.source import Outcome, Reading, SnapshotTarget
from octogen_dagster.snapshots.assets import SEARCH
from octogen_dagster.snapshots.io_manager import input_kind, pair_of
from octogen_dagster.snapshots.metadata import (
    COLUMN_SCHEMA,
    HISTORY_SOURCES,
    column_lineage,
    column_schema,
)
from octogen_dagster.snapshots.partitions import PartitionLayout
from octogen_dagster.snapshots.ranges import Made, own_range, snapshot_asset
from octogen_dagster.store import DamagedError

_VERSIONS = "octogen.snapshots"
"""The metadata of a history's file that says which partitions it has read, in which version."""


def _of_pair(pair: SnapshotPair) -> list[StoredSnapshot]:
    opened = [(pair.current, pair.file_metadata)]
    if pair.previous is not None:
        opened.append((pair.previous, pair.previous_file_metadata))
    return [StoredSnapshot(lambda each=each: each) for each in opened]  # type: ignore[misc]


class HistoryUpdate:
    """A source: the history that is in a place, with the snapshots put in that it has not seen."""

    spending = None

    def __init__(self, snapshots: Iterable[StoredSnapshot]) -> None:
        self._snapshots = snapshots

    @contextlib.contextmanager
    def reading(self, target: SnapshotTarget, stop: threading.Event) -> Iterator[Reading]:
        """Let the block store the history in its target."""
        before = target.latest_metadata()
        history = _existing(target, before)
        observed = read_observed(before)
        forgotten = read_forgotten(before)
        versions: dict[str, str] = json.loads(before.get(_VERSIONS, "{}"))
        unseen: dict[datetime, StoredSnapshot] = {}
        for snapshot in self._snapshots:
            check(stop)
            if snapshot.name:
                if versions.get(snapshot.name) == snapshot.version:
                    continue
                versions[snapshot.name] = snapshot.version
            frame, file_metadata, at = _opened(snapshot)
            if at is None or at in observed or at in forgotten:
                continue
            # Not its frame: a frame keeps its file open, and there may be thousands.
            unseen[at] = snapshot
            observed[at] = observation_of(frame, file_metadata)
            target.log(f"The snapshot of {at:%Y-%m-%d %H:%M:%S} UTC is put into the history.")

        def frames(_query: Query, stop: threading.Event) -> Iterator[pl.DataFrame]:
            yield from _with(history, unseen, observed, stop)
            if target.latest_metadata() != before:
                raise OctogenSnapshotError(
                    "The history was replaced while snapshots were put into it, by another run or "
                    "by forget_snapshot. Nothing was changed; run it again."
                )

        outcome = Outcome(file_metadata=history_metadata(observed, forgotten))
        if versions:
            outcome = replace(
                outcome, file_metadata={**outcome.file_metadata, _VERSIONS: json.dumps(versions)}
            )
        frame = io_source(HISTORY_SCHEMA, frames, stop)
        yield Reading(frame, lambda: outcome)


def _existing(target: SnapshotTarget, file_metadata: Mapping[str, str]) -> pl.LazyFrame:
    try:
        history = target.latest()
    except DamagedError as error:
        raise OctogenSnapshotError(
            f"The history {error.uri} is damaged ({error.cause}), and a new one would lack the "
            "past. Restore the file from a backup, or move it away to begin anew."
        ) from error
    if history is None:
        return pl.LazyFrame(schema=HISTORY_SCHEMA)
    if OBSERVED not in file_metadata:
        raise OctogenSnapshotError(
            "The file at the place of the history does not say which snapshots are in it, so none "
            "can be put in. Run it again if the store was not in reach. If the file is not a "
            "history, move it away to begin one."
        )
    return history


def _opened(
    snapshot: StoredSnapshot,
) -> tuple[pl.LazyFrame, Mapping[str, str], datetime | None]:
    """The rows of a snapshot, its metadata, and when it was read.

    That is None if it does not say it, since it has no rows.
    """
    stored, file_metadata = snapshot.open()
    frame = tracked_products(stored)
    if (at := file_metadata.get("octogen.fetched_at")) is not None:
        return frame, file_metadata, datetime.fromisoformat(at)
    last = frame.select(pl.len(), pl.col("fetched_at").max())
    rows, found = last.collect(engine="streaming").row(0)
    if rows and found is None:
        raise OctogenSnapshotError(
            "A snapshot of products does not say when it was read: fetched_at is null in all "
            f"{rows:,} rows. Give fetched_at the time of the snapshot before you store it."
        )
    return frame, file_metadata, found


def _with(
    history: pl.LazyFrame,
    unseen: Mapping[datetime, StoredSnapshot],
    observed: Mapping[datetime, Observation],
    stop: threading.Event,
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a history with snapshots put in, one after the other."""
    if not unseen:
        yield from until_stopped(history.collect_batches(engine="streaming"), stop)
        return
    *earlier, last = sorted(unseen)

    def with_snapshot(history: pl.LazyFrame, at: datetime) -> Iterator[pl.DataFrame]:
        check(stop)
        known = {time: observed[time] for time in observed if time not in unseen or time <= at}
        snapshot, _, found_at = _opened(unseen[at])
        if found_at != at:
            raise OctogenSnapshotError(
                f"The snapshot of {at:%Y-%m-%d %H:%M:%S} UTC was replaced while it was put into "
                "the history. Nothing was changed; run it again."
            )
        return until_stopped(put_in(history, snapshot, at, known), stop)

    for at in earlier:
        frame = io_source(HISTORY_SCHEMA, lambda *_: with_snapshot(history, at))  # noqa: B023
        # It has no name that a killed run could leave, and ends with the frame that reads it.
        file = tempfile.TemporaryFile()  # noqa: SIM115
        frame.sink_parquet(file, compression="zstd", compression_level=1)
        file.seek(0)  # Polars reads from where the file is
        history = pl.scan_parquet(file, glob=False)
    yield from with_snapshot(history, last)


def build_product_history_asset(
    products: dg.AssetsDefinition,
    *,
    name: str | dg.AssetSpec | None = None,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset: what each product cost and whether it was in stock, on any day.

    A row is a product with the values (title, prices, currency, `in_stock`, `is_active`) that it
    had from `valid_from` until before `valid_to`; both are the `fetched_at` of snapshots. The
    columns are those of `octogen_dagster.HISTORY_SCHEMA`, and `scan_history` reads them.

    A run puts in the snapshot of the products, and the one that it replaced if no run has put that
    in, so a run that was missed is made up for by the next one. A snapshot that is there already
    changes nothing, and one that is older than others is slotted in: the table depends only on
    which snapshots are in it. A product that comes back has `reappeared`. A catalog that a snapshot
    has no products of was withdrawn and ends no rows, unless the search has filters: then a product
    that is gone no longer matches. A value that is null, such as one that the service does not
    send, is a value of its own.

    The numbers in the metadata are of the last snapshot in the table: `octogen/changed`,
    `octogen/appeared`, `octogen/disappeared`, `octogen/reappeared`, `octogen/current_products` and
    `octogen/median_price_usd`, and so for other currencies. `octogen/largest_price_drops` is a
    table.

    Args:
        products: An asset of `build_products_asset`, or one of your own with the columns
            `catalog_key`, `uuid`, `product_url`, `fetched_at` and the values, which
            `ParquetSnapshotIOManager` stores. The history has the same catalogs as partitions, and
            no times: it reads the snapshot of each time that it has not seen.
        name: The asset's name or `dagster.AssetSpec`; by default `<products>_history`.
        asset_arguments: Any other argument of `@dagster.asset`. With
            `automation_condition=octogen_dagster.follow_upstream()` the history follows each new
            snapshot.
    """
    require_asset(products, "products")
    partitions = PartitionLayout(products.partitions_def)
    given = asset_arguments_of(name or f"{products.key.path[-1]}_history", asset_arguments)
    given |= own_range(given, products)
    condition = given.get("automation_condition")
    if partitions.times and condition is not None:
        given["automation_condition"] = wait_only_for_latest(condition)
    lineage = column_lineage(products.key, HISTORY_SOURCES)
    kind = input_kind(products, SnapshotPair, given.get("backfill_policy"))

    @snapshot_asset(
        {
            "partitions_def": partitions.catalogs,
            "ins": {"snapshots": dg.AssetIn(products.key, partition_mapping=_all_times(products))},
            "pool": None,
            "metadata": {COLUMN_SCHEMA: column_schema(HISTORY_SCHEMA)},
            "description": _description(products),
        },
        given,
        loads=SnapshotTimes if partitions.times else kind,
    )
    def history(_: dg.AssetExecutionContext, snapshots: Any) -> Callable[[str | None], Made]:
        def made(partition: str | None) -> Made:
            if isinstance(snapshots, SnapshotTimes):
                stored = snapshots.of(partition)
            else:
                stored = _of_pair(pair_of(snapshots, partition))
            return Made(HistoryUpdate(stored), lineage)

        return made

    return history


def _all_times(products: dg.AssetsDefinition) -> dg.PartitionMapping | None:
    """Map each catalog to its partitions of all times."""
    partitions_def = products.partitions_def
    if not isinstance(partitions_def, dg.MultiPartitionsDefinition):
        return None
    time = partitions_def.time_window_dimension.name
    (catalog,) = {*partitions_def.partition_dimension_names} - {time}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.MultiToSingleDimensionPartitionMapping(catalog)


def _description(products: dg.AssetsDefinition) -> str:
    text = (
        f"The title, the price and the availability of each product in "
        f"{products.key.to_user_string()} since its first snapshot. A row is a product with the "
        "values that it had from valid_from until before valid_to."
    )
    found = products.metadata_by_key.get(products.key, {}).get(SEARCH)
    search = ProductSearch.model_validate(getattr(found, "value", None) or {})
    if not search.reads_whole_catalogs:
        text += " The search has filters, so a product that is gone no longer matches them."
    return text
