"""The sensor that tells somebody of new alerts."""

from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster.alerts.asset import ALERT_RULES
from octogen_dagster.alerts.events import ALERTS_SCHEMA
from octogen_dagster.assets.definition import require_asset
from octogen_dagster.assets.latest import latest_ids
from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
from octogen_dagster.snapshots.partitions import SnapshotKeys
from octogen_dagster.storage.store import Store, beside

MAX_VANISHED = 100_000
"""The number of events whose ids are kept after they vanished from a file of alerts."""
_TOLD = pl.Schema({"file": pl.String(), "alert_id": pl.String()})


def build_alert_sensor(
    alerts: dg.AssetsDefinition,
    notify: Callable[[pl.DataFrame], object],
    *,
    name: str | None = None,
    **sensor_arguments: Any,
) -> dg.SensorDefinition:
    """Build a sensor that tells somebody of new alerts.

    After a materialization of the alerts it calls `notify` with those that it has not yet told of,
    in the order of time, as a frame with the columns of `octogen_dagster.schemas.ALERTS_SCHEMA`.
    The first call has all that are in the table.

    Each event is told at least once: if `notify` raises, the tick fails and the next one calls it
    again. Once it has returned, the ids of what it told are stored beside the alerts, so that an
    event is not told again, also if Dagster's cursor is lost or the alerts are computed anew. A
    process that is killed between the two, in the blink of an eye, tells them again. Ids are kept
    as long as the events are in the table. Of events that vanish from a partition, the last 100,000
    ids are kept.

    Args:
        alerts: An asset of `build_price_alerts_asset`, which `ParquetSnapshotIOManager` stores.
        notify: A function that sends the events to where people are.
        name: The sensor's name; by default `<alerts>_sensor`. What it has told is kept by this
            name.
        sensor_arguments: Any other argument of `@dagster.sensor`, such as `default_status`,
            `minimum_interval_seconds`.

    Raises:
        TypeError: `alerts` is no asset, or `notify` no function.
        ValueError: The asset is not of `build_price_alerts_asset`.
    """
    require_asset(alerts, "alerts")
    if ALERT_RULES not in alerts.metadata_by_key.get(alerts.key, {}):
        raise ValueError(
            f"{alerts.key.to_user_string()} is not an asset of build_price_alerts_asset."
        )
    if not callable(notify):
        raise TypeError(f"notify must be a function that takes a frame of events, not {notify!r}.")
    key, name = alerts.key, name or f"{alerts.key.to_python_identifier()}_sensor"
    (output,) = alerts.node_def.output_defs
    resource = output.io_manager_key

    @dg.sensor(
        **{
            "name": name,
            "description": f"Reports new events in {key.to_user_string()}.",
            "required_resource_keys": {resource},
            **sensor_arguments,
        }
    )
    def alert_sensor(context: dg.SensorEvaluationContext, **_: Any) -> dg.SkipReason:
        store = _store_of(getattr(context.resources, resource), key)
        seen = int(context.cursor or 0)
        # Read before the files: a materialization meanwhile has a larger id, and is seen next time.
        ids = _last_materializations(context.instance, alerts)
        updated = [partition for partition, event in ids.items() if event > seen]
        if not updated:
            return dg.SkipReason("The alerts were not materialized since the last tick.")
        told_key = beside(SnapshotKeys(store, key).of(None), f".{name}.told")
        told = _told(store, told_key)
        files = [SnapshotKeys(store, key).of(partition) for partition in updated]
        there = {file: file for file in files if store.exists(file)}
        stored = store.scan_together(there, _with_file) if there else _NO_ALERTS
        new = stored.join(told.lazy(), on="alert_id", how="anti").sort("at", "rule")
        events, present = pl.collect_all([new, stored.select(_TOLD.names())])
        if not events.is_empty():
            notify(events.drop("file"))
            # Only now: events that could not be told are told at the next tick.
            with store.unfinished(told_key) as unfinished:
                _kept(told, files, present).write_parquet(unfinished)
                store.publish(unfinished, told_key)
        context.update_cursor(str(max(ids.values())))
        return dg.SkipReason(f"New events reported: {len(events):,}.")

    return alert_sensor


def _store_of(manager: Any, asset: dg.AssetKey) -> Store:
    if isinstance(manager, ParquetSnapshotIOManager):
        return manager.store
    raise OctogenSnapshotError(
        f"The IO manager of {asset.to_user_string()} is a {type(manager).__name__}, and a sensor "
        "of alerts reads what a ParquetSnapshotIOManager stores. Give the alerts one."
    )


def _last_materializations(
    instance: dg.DagsterInstance, alerts: dg.AssetsDefinition
) -> dict[str | None, int]:
    """The event of the last materialization of each partition; None is one without partitions."""
    if alerts.partitions_def is not None:
        return dict[str | None, int](latest_ids(instance, alerts.key).items())
    records = instance.fetch_materializations(alerts.key, limit=1).records
    return {None: records[0].storage_id} if records else {}


def _with_file(file: str, alerts: pl.LazyFrame) -> pl.LazyFrame:
    return alerts.with_columns(pl.lit(file).alias("file"))


_NO_ALERTS = _with_file("", pl.LazyFrame(schema=ALERTS_SCHEMA))


def _told(store: Store, key: str) -> pl.DataFrame:
    return store.scan(key).collect() if store.exists(key) else pl.DataFrame(schema=_TOLD)


def _kept(told: pl.DataFrame, files: Sequence[str], present: pl.DataFrame) -> pl.DataFrame:
    """The ids to keep: those in the files, and of each file the last ones that vanished from it.

    Events that vanished stand before the others, in the order in which they did.
    """
    is_updated = pl.col("file").is_in(files)
    vanished = told.filter(is_updated).join(
        present, on="alert_id", how="anti", maintain_order="left"
    )
    last = vanished.group_by("file", maintain_order=True).tail(MAX_VANISHED)
    return pl.concat([told.filter(~is_updated), last, present])
