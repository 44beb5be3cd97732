"""The builder of alerts: what became true of the products of a history."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster.alerts.rules import AlertRule, PriceListRule, check_rule_names
from octogen_dagster.alerts.update import ALERTS_KIND, AlertsUpdate, OwnAlertsUpdate
from octogen_dagster.assets.definition import asset_arguments_of, require_asset
from octogen_dagster.frames.kinds import Check, Verdict
from octogen_dagster.history.table import HISTORY_KIND, HISTORY_SCHEMA
from octogen_dagster.history.tracking import COMPUTED
from octogen_dagster.printable import count
from octogen_dagster.snapshots.asset_decorator import SnapshotRun, snapshot_asset
from octogen_dagster.snapshots.loading import Snapshots, all_partitions
from octogen_dagster.snapshots.metadata import kind_of

ALERT_RULES = "octogen/alert_rules"
"""The metadata of an asset of alerts that has the limits of its rules' checks."""


def build_price_alerts_asset(
    history: dg.AssetsDefinition,
    rules: Sequence[AlertRule],
    *,
    own: dg.AssetsDefinition | None = None,
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

    With `own` the rules are of own prices. An event is then dated by the change of either side that
    made the rule true, and has `sku`, `own_price` and the `rank` of the own price. Pages are
    matched as in a price position. What gives no event is counted: `octogen/no_own_price`,
    `octogen/other_currency`, `octogen/no_currency` and `octogen/no_price`.

    Args:
        history: An asset of `build_product_history_asset`. The alerts have the same partitions;
            those of own prices have none, and are of all catalogs.
        rules: Some of `PriceDropped`, `PriceRose`, `BackInStock`, `OutOfStock`, `Appeared` and
            `Disappeared`; with `own` some of `Undercut` and `BelowFloor`. Each has a name of its
            own.
        own: An asset of `build_history_asset` that has `sku`, `product_url` (a competitor's page,
            of which a SKU may have several), `own_price`, `currency` and the column of a floor.
        name: The asset's name or `dagster.AssetSpec`; by default that of the history, with
            `_alerts` in place of `_history`, or `_own_alerts`.
        asset_arguments: Any other argument of `@dagster.asset`. With
            `automation_condition=octogen_dagster.follow_upstream()` the alerts follow the history.

    Raises:
        TypeError: A history is no asset, or `rules` is no list of rules.
        ValueError: An asset is no history, there is no rule, two have the same name, or a rule is
            of own prices and `own` is not given, or the reverse.
    """
    require_asset(history, "history")
    if not isinstance(rules, Sequence) or not all(isinstance(rule, AlertRule) for rule in rules):
        raise TypeError(
            f"rules must be a list of rules, such as [PriceDropped(percent=10)], not {rules!r}."
        )
    if not rules:
        raise ValueError("rules must have a rule at least, such as PriceDropped(percent=10).")
    check_rule_names(rules)
    snapshots = history.keys_by_input_name.get("snapshots")
    if snapshots is None or kind_of(history) is not HISTORY_KIND:
        raise ValueError(
            f"{history.key.to_user_string()} is not an asset of build_product_history_asset. Give "
            "the history of the products."
        )
    of_own = [rule for rule in rules if isinstance(rule, PriceListRule)]
    if len(of_own) not in {0, len(rules)} or bool(of_own) != (own is not None):
        raise ValueError(
            "The rules Undercut and BelowFloor are of own prices: give them an asset of alerts of "
            "their own, with own=build_history_asset(...). The other rules are of products alone."
        )
    base = history.key.path[-1].removesuffix("_history")
    default = f"{base}_alerts" if own is None else f"{base}_own_alerts"
    given = asset_arguments_of(name or default, asset_arguments)
    limits = {
        rule.name: {"max_products": rule.max_products, "max_percent": rule.max_percent}
        for rule in rules
    }
    subject = f"the products in {history.key.to_user_string()}"
    if own is not None:
        subject = f"the own prices in {own.key.to_user_string()}, against {subject}"
    arguments = {
        "metadata": {ALERT_RULES: limits},
        "description": f"What became true of {subject}: {', '.join(limits)}. A row is an event.",
    }
    shared: dict[str, Any] = {
        "given": given,
        "made_from": history,
        "needs_files": True,
        "kind": replace(ALERTS_KIND, checks={rule.name: _check_of(rule) for rule in rules}),
    }
    if own is not None:
        return _own_alerts(history, own, of_own, arguments, shared)
    mapping = history.get_partition_mapping(snapshots)
    ins = {
        "history": dg.AssetIn(history.key),
        "snapshots": dg.AssetIn(snapshots, partition_mapping=mapping),
    }
    partitions = {"partitions_def": history.partitions_def, "ins": ins}

    @snapshot_asset({**partitions, **arguments}, **shared)
    def alerts(
        _run: SnapshotRun, partition: str | None, history: Snapshots, snapshots: Snapshots
    ) -> dg.MaterializeResult[AlertsUpdate]:
        file = history.file(partition)
        products, _ = snapshots.of_catalog(partition)[-1].open()
        return dg.MaterializeResult(value=AlertsUpdate(rules, file.frame, file.metadata, products))

    return alerts


def _own_alerts(
    history: dg.AssetsDefinition,
    own: dg.AssetsDefinition,
    rules: Sequence[PriceListRule],
    arguments: Mapping[str, Any],
    shared: Mapping[str, Any],
) -> dg.AssetsDefinition:
    """The asset of alerts of own prices."""
    require_asset(own, "own")
    kind = kind_of(own)
    if kind is HISTORY_KIND or not COMPUTED.keys() <= kind.descriptions.keys():
        raise ValueError(
            f"{own.key.to_user_string()} is not an asset of build_history_asset. Give the history "
            'of your own prices, such as build_history_asset(articles, key=["sku", "product_url"], '
            'tracked=["own_price", "currency"]).'
        )
    ins = {"history": all_partitions(history), "own": all_partitions(own)}

    @snapshot_asset({"ins": ins, **arguments}, **shared)
    def own_alerts(
        _run: SnapshotRun, _partition: str | None, history: Snapshots, own: Snapshots
    ) -> dg.MaterializeResult[OwnAlertsUpdate]:
        said = {f"history {name}": each for name, each in history.metadata().items()}
        said |= {f"own {name}": each for name, each in own.metadata().items()}
        nothing = pl.LazyFrame(schema=HISTORY_SCHEMA)
        products = pl.concat([nothing, *history.frames()], how="diagonal_relaxed")
        # Without a snapshot `frame` raises the error that says so.
        prices = pl.concat(own.frames() or [own.frame(None)], how="diagonal_relaxed")
        return dg.MaterializeResult(value=OwnAlertsUpdate(rules, products, prices, said))

    return own_alerts


def _check_of(rule: AlertRule) -> Check:
    """The check that warns if many products match a rule in the last snapshot."""

    def judge(_subject: str, entries: Mapping[str, Any]) -> Verdict:
        found = entries.get(f"octogen/{rule.name}", 0)
        rows = entries.get(f"octogen/{rule.counted}", 0)
        share = rule.max_percent
        is_share = share is None or found > rows * share / 100
        text = f"{found:,} of {count(rows, rule.row)} matched in the last snapshot."
        return Verdict(not (found > rule.max_products and is_share), text, {"events": found})

    description = f"Few {rule.row}s match the rule {rule.name} in the last snapshot."
    return Check(description, judge=judge, warns=True)
