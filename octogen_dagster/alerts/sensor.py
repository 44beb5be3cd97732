"""The sensor that reports new alerts."""

from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster.alerts.asset import ALERT_RULES
from octogen_dagster.alerts.events import ALERTS_SCHEMA
from octogen_dagster.assets.definition import require_asset
from octogen_dagster.assets.latest import latest_id_by_partition
from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
from octogen_dagster.snapshots.partitions import SnapshotKeys
from octogen_dagster.storage.store import Store, beside

MAX_VANISHED = 100_000
"""The maximum number of removed event ids to keep for each file."""
_REPORTED = pl.Schema({"file": pl.String(), "alert_id": pl.String()})


def build_alert_sensor(
    alerts: dg.AssetsDefinition,
    notify: Callable[[pl.DataFrame], object],
    *,
    name: str | None = None,
    **sensor_arguments: Any,
) -> dg.SensorDefinition:
    """Build a sensor that reports new alerts.

    After each materialization, the sensor calls `notify` with the events that it has not reported
    yet. The events are a Polars frame with the columns in `octogen_dagster.schemas.ALERTS_SCHEMA`,
    sorted by time. The first call passes all events in the table.

    Each event is reported at least once. If `notify` raises an error, the tick fails and the next
    tick calls `notify` again. After `notify` returns, the sensor stores the ids of the reported
    events beside the alerts, so events are not reported again if the cursor is lost or the alerts
    are recomputed. If the process is killed before the ids are stored, the next tick reports the
    events again. The sensor keeps the ids of all events in the table, and of the latest 100,000
    events removed from each partition.

    Args:
        alerts: An asset built by `build_price_alerts_asset`, stored by `ParquetSnapshotIOManager`.
        notify: A function that takes the events, such as a `SlackNotifier`.
        name: The sensor's name. Defaults to `<alerts>_sensor`. The ids of reported events are
            stored under this name.
        sensor_arguments: Other arguments for `@dagster.sensor`, such as `default_status` and
            `minimum_interval_seconds`.

    Raises:
        TypeError: `alerts` is not an asset, or `notify` is not callable.
        ValueError: The asset was not built by `build_price_alerts_asset`.
    """
    require_asset(alerts, "alerts")
    if ALERT_RULES not in alerts.metadata_by_key.get(alerts.key, {}):
        raise ValueError(
            f"{alerts.key.to_user_string()} is not an alerts asset. Pass an asset built by "
            "build_price_alerts_asset."
        )
    if not callable(notify):
        raise TypeError(
            f"`notify` must be a function that takes a Polars frame of events; got {notify!r}."
        )
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
        # Read the ids before the files. A later materialization then has a larger id, so the next
        # tick processes it.
        ids = latest_id_by_partition(
            context.instance, alerts.key, partitioned=alerts.partitions_def is not None
        )
        updated = [partition for partition, event in ids.items() if event > seen]
        if not updated:
            return dg.SkipReason("The alerts have not been materialized since the last tick.")
        reported_key = beside(SnapshotKeys(store, key).of(None), f".{name}.reported")
        reported = pl.DataFrame(schema=_REPORTED)
        if store.exists(reported_key):
            reported = store.scan(reported_key).collect()
        files = [SnapshotKeys(store, key).of(partition) for partition in updated]
        there = {file: file for file in files if store.exists(file)}
        stored = store.scan_together(there, _with_file) if there else _NO_ALERTS
        new = stored.join(reported.lazy(), on="alert_id", how="anti").sort("at", "rule")
        events, present = pl.collect_all([new, stored.select(_REPORTED.names())])
        if not events.is_empty():
            notify(events.drop("file"))
            # Store the ids only now: if `notify` fails, the next tick reports the events again.
            with store.unfinished(reported_key) as unfinished:
                _kept(reported, files, present).write_parquet(unfinished)
                store.publish(unfinished, reported_key)
        context.update_cursor(str(max(ids.values())))
        return dg.SkipReason(f"New events reported: {len(events):,}.")

    return alert_sensor


def _store_of(manager: Any, asset: dg.AssetKey) -> Store:
    if isinstance(manager, ParquetSnapshotIOManager):
        return manager.store
    raise OctogenSnapshotError(
        f"{asset.to_user_string()} uses the IO manager {type(manager).__name__}, but alert sensors "
        "read Parquet snapshots. Store the alerts with a ParquetSnapshotIOManager."
    )


def _with_file(file: str, alerts: pl.LazyFrame) -> pl.LazyFrame:
    return alerts.with_columns(pl.lit(file).alias("file"))


_NO_ALERTS = _with_file("", pl.LazyFrame(schema=ALERTS_SCHEMA))


def _kept(reported: pl.DataFrame, files: Sequence[str], present: pl.DataFrame) -> pl.DataFrame:
    """Return the ids of all current events, and of each file's most recently removed events."""
    is_updated = pl.col("file").is_in(files)
    vanished = reported.filter(is_updated).join(
        present, on="alert_id", how="anti", maintain_order="left"
    )
    last = vanished.group_by("file", maintain_order=True).tail(MAX_VANISHED)
    return pl.concat([reported.filter(~is_updated), last, present])
