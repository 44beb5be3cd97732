"""The builders of alerts: the asset with its checks, and the sensor that tells somebody of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster.asset_definition import asset_arguments_of, require_asset
from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.alert_rules import AlertRule, check_names, check_of
from octogen_dagster.frames.alerts import ALERTS_SCHEMA
from octogen_dagster.frames.alerts_update import ALERTS_KIND, AlertsUpdate
from octogen_dagster.frames.history import HISTORY_KIND
from octogen_dagster.snapshots.asset_decorator import SnapshotRun, own_range, snapshot_asset
from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
from octogen_dagster.snapshots.loading import Snapshots
from octogen_dagster.snapshots.metadata import kind_of
from octogen_dagster.snapshots.partitions import SnapshotKeys
from octogen_dagster.store import Store, beside

ALERT_RULES = "octogen/alert_rules"
"""The metadata of an asset of alerts that has the limits of its rules' checks."""


def build_price_alerts_asset(
    history: dg.AssetsDefinition,
    rules: Sequence[AlertRule],
    *,
    name: str | dg.AssetSpec | None = None,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset: what became true of a product's price, stock or place in a catalog, and when.

    A row is an event: a rule, a product and a snapshot in which the rule became true. The columns
    are those of `octogen_dagster.ALERTS_SCHEMA`. The events follow from the history alone: a run
    that is repeated adds none, days that were missed are made up for, and a late snapshot or
    `forget_snapshot` recomputes them from its time on; `octogen/events_appeared` and
    `octogen/events_vanished` say how many. A product whose currency changes is an event
    `currency_changed` if there is a rule of prices, and never a drop.

    A rule that is new looks back over its `days`. One that is changed does so too, and keeps what
    it found before; the events of one that is removed go with it. The numbers of the last snapshot
    are in the metadata by the name of each rule, such as `octogen/price_dropped`, and
    `octogen/largest_alerts` is a table of the largest with links. `build_snapshot_checks` of
    this asset has a check for each rule.

    Args:
        history: An asset of `build_product_history_asset`. The alerts have the same partitions.
        rules: Some of `PriceDropped`, `PriceRose`, `BackInStock`, `OutOfStock`, `Appeared` and
            `Disappeared`, each with a name of its own.
        name: The asset's name or `dagster.AssetSpec`; by default that of the history, with
            `_alerts` in place of `_history`.
        asset_arguments: Any other argument of `@dagster.asset`. With
            `automation_condition=octogen_dagster.follow_upstream()` the alerts follow the history.

    Raises:
        TypeError: The history is no asset, or `rules` is no list of rules.
        ValueError: The asset is no history, there is no rule, or two have the same name.
    """
    require_asset(history, "history")
    if not isinstance(rules, Sequence) or not all(isinstance(rule, AlertRule) for rule in rules):
        raise TypeError(
            f"rules must be a list of rules, such as [PriceDropped(percent=10)], not {rules!r}."
        )
    if not rules:
        raise ValueError("rules must have a rule at least, such as PriceDropped(percent=10).")
    check_names(rules)
    snapshots = history.keys_by_input_name.get("snapshots")
    if snapshots is None or kind_of(history) is not HISTORY_KIND:
        raise ValueError(
            f"{history.key.to_user_string()} is not an asset of build_product_history_asset. Give "
            "the history of the products."
        )
    default = f"{history.key.path[-1].removesuffix('_history')}_alerts"
    given = asset_arguments_of(name or default, asset_arguments)
    given |= own_range(given, history)
    mapping = history.get_partition_mapping(snapshots)
    limits = {
        rule.name: {"max_products": rule.max_products, "max_percent": rule.max_percent}
        for rule in rules
    }

    @snapshot_asset(
        {
            "partitions_def": history.partitions_def,
            "ins": {
                "history": dg.AssetIn(history.key),
                "snapshots": dg.AssetIn(snapshots, partition_mapping=mapping),
            },
            "pool": None,
            "metadata": {ALERT_RULES: limits},
            "description": (
                f"What became true of the products in {history.key.to_user_string()}: "
                f"{', '.join(limits)}. A row is an event of a product."
            ),
        },
        given,
        needs_previous=True,
        kind=replace(ALERTS_KIND, checks={rule.name: check_of(rule) for rule in rules}),
    )
    def alerts(
        _run: SnapshotRun, partition: str | None, history: Snapshots, snapshots: Snapshots
    ) -> dg.MaterializeResult[AlertsUpdate]:
        file = history.file(partition)
        opened = [each.open()[0] for each in snapshots.newest(partition)]
        return dg.MaterializeResult(value=AlertsUpdate(rules, file.frame, file.metadata, opened))

    return alerts


def build_alert_sensor(
    alerts: dg.AssetsDefinition,
    notify: Callable[[pl.DataFrame], object],
    *,
    name: str | None = None,
    **sensor_arguments: Any,
) -> dg.SensorDefinition:
    """Build a sensor that tells somebody of new alerts.

    After a materialization of the alerts it calls `notify` with those that it has not yet told of,
    in the order of time, as a frame with the columns of `octogen_dagster.ALERTS_SCHEMA`. The first
    call has all that are in the table.

    Each event is told at least once: if `notify` raises, the tick fails and the next one calls it
    again. Once it has returned, the ids of what it told are stored beside the alerts, so that an
    event is not told again, also if Dagster's cursor is lost or the alerts are computed anew. A
    process that is killed between the two, in the blink of an eye, tells them again.

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
        new = store.scan_together(there) if there else pl.LazyFrame(schema=ALERTS_SCHEMA)
        events = new.join(told.lazy(), on="alert_id", how="anti").sort("at", "rule").collect()
        if not events.is_empty():
            notify(events)
            # Only now: events that could not be told are told at the next tick.
            with store.unfinished(told_key) as unfinished:
                pl.concat([told, events.select("alert_id")]).write_parquet(unfinished)
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
        kind = dg.DagsterEventType.ASSET_MATERIALIZATION
        found = instance.get_latest_storage_id_by_partition(alerts.key, kind)
        return dict[str | None, int](found.items())
    records = instance.fetch_materializations(alerts.key, limit=1).records
    return {None: records[0].storage_id} if records else {}


def _told(store: Store, key: str) -> pl.DataFrame:
    if not store.exists(key):
        return pl.DataFrame(schema={"alert_id": pl.String})
    return store.scan(key).collect()
