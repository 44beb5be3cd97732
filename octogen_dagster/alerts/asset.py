"""The builder of alerts: what became true of the products of a history."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import dagster as dg

from octogen_dagster.alerts.rules import AlertRule, check_names, check_of
from octogen_dagster.alerts.update import ALERTS_KIND, AlertsUpdate
from octogen_dagster.assets.definition import asset_arguments_of, require_asset
from octogen_dagster.history.table import HISTORY_KIND
from octogen_dagster.snapshots.asset_decorator import SnapshotRun, snapshot_asset
from octogen_dagster.snapshots.loading import Snapshots
from octogen_dagster.snapshots.metadata import kind_of

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
    are those of `octogen_dagster.schemas.ALERTS_SCHEMA`. The events follow from the history alone:
    a run that is repeated adds none, days that were missed are made up for, and a late snapshot or
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
            "metadata": {ALERT_RULES: limits},
            "description": (
                f"What became true of the products in {history.key.to_user_string()}: "
                f"{', '.join(limits)}. A row is an event of a product."
            ),
        },
        given,
        made_from=history,
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
