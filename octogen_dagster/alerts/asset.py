"""build_price_alerts_asset: find events with rules for prices, stock and assortment."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster.alerts.rules import AlertRule, PriceListRule, check_rule_names
from octogen_dagster.alerts.update import ALERTS_KIND, AlertsUpdate, PriceListAlertsUpdate
from octogen_dagster.assets.definition import asset_arguments_of, require_asset
from octogen_dagster.frames.kinds import Check, Verdict
from octogen_dagster.history.table import HISTORY_KIND, HISTORY_SCHEMA
from octogen_dagster.history.tracking import COMPUTED
from octogen_dagster.printable import count
from octogen_dagster.snapshots.asset_decorator import SnapshotRun, snapshot_asset
from octogen_dagster.snapshots.loading import Snapshots, all_partitions
from octogen_dagster.snapshots.metadata import kind_of

ALERT_RULES = "octogen/alert_rules"
"""The metadata key that stores the limits for each rule's check."""


def build_price_alerts_asset(
    history: dg.AssetsDefinition,
    rules: Sequence[AlertRule],
    *,
    price_list: dg.AssetsDefinition | None = None,
    name: str | dg.AssetSpec | None = None,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an alerts asset from rules for prices, stock and assortment.

    Each row is one event: a product triggered a rule in a snapshot.
    `octogen_dagster.schemas.ALERTS_SCHEMA` lists the columns. Events are computed only from the
    history, so repeating a run adds no events, and a run after missed days adds the events from
    those days. If a snapshot arrives late or is removed with `forget_snapshot`, events from that
    time onward are recomputed. `octogen/events_appeared` and `octogen/events_vanished` count the
    events that a run adds and removes. If a product's currency changes, price rules report a
    `currency_changed` event instead of a price change.

    A new or changed rule also finds events from the last `days` days. If you change a rule, the
    table keeps its older events; removing a rule removes all its events. The metadata includes the
    number of events that each rule found in the latest snapshot, such as `octogen/price_dropped`.
    `octogen/largest_alerts` lists the largest changes with links. `build_snapshot_checks` adds a
    check for each rule.

    If `price_list` is set, the rules compare competitors' prices with your prices. A change to
    either price can trigger an event. These events also contain `sku`, `price` and `rank`. Products
    are matched by URL, as in a price position asset. Price-list rows that cannot be compared are
    counted as `octogen/unpriced`, `octogen/other_currency`, `octogen/no_currency` and
    `octogen/no_price`.

    Args:
        history: An asset built by `build_product_history_asset`. The alerts asset gets the same
            partitions. If `price_list` is set, the alerts asset has no partitions, because it
            covers all catalogs.
        rules: Product rules such as `PriceDropped` or, with `price_list`, price-list rules such as
            `Undercut`. Each rule needs a unique name.
        price_list: The history of your price list, built by `build_history_asset`. It needs the
            columns `sku`, `product_url` (a competitor's product page; a SKU can have several
            pages), `price` and `currency`, and any column that a rule compares, such as a floor
            price.
        name: The asset's name or `dagster.AssetSpec`. Defaults to the history's name with `_alerts`
            or `_price_list_alerts` in place of `_history`.
        asset_arguments: Other arguments for `@dagster.asset`. Pass
            `automation_condition=octogen_dagster.follow_upstream()` to run after each history
            update.

    Raises:
        TypeError: `history` or `price_list` is not an asset, or `rules` is not a list of rules.
        ValueError: An asset is not a history, `rules` is empty, two rules have the same name,
            price-list rules are used without `price_list`, or product rules are used with it.
    """
    _check_arguments(history, rules, price_list)
    base = history.key.path[-1].removesuffix("_history")
    default = f"{base}_alerts" if price_list is None else f"{base}_price_list_alerts"
    given = asset_arguments_of(name or default, asset_arguments)
    limits = {
        rule.name: {"max_products": rule.max_products, "max_percent": rule.max_percent}
        for rule in rules
    }
    subject = f"the products in {history.key.to_user_string()}"
    if price_list is not None:
        subject = f"the price list in {price_list.key.to_user_string()}, compared with {subject}"
    arguments = {
        "metadata": {ALERT_RULES: limits},
        "description": f"Alerts for {subject}: {', '.join(limits)}. Each row is an event.",
    }
    shared: dict[str, Any] = {
        "given": given,
        "made_from": history,
        "needs_files": True,
        "kind": replace(ALERTS_KIND, checks={rule.name: _check_of(rule) for rule in rules}),
    }
    if price_list is not None:
        list_rules = [rule for rule in rules if isinstance(rule, PriceListRule)]
        return _price_list_alerts(history, price_list, list_rules, arguments, shared)
    snapshots = history.keys_by_input_name["snapshots"]
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


def _check_arguments(
    history: dg.AssetsDefinition,
    rules: Sequence[AlertRule],
    price_list: dg.AssetsDefinition | None,
) -> None:
    require_asset(history, "history")
    if not isinstance(rules, Sequence) or not all(isinstance(rule, AlertRule) for rule in rules):
        raise TypeError(
            f"`rules` must be a list of rules, such as [PriceDropped(percent=10)]; got {rules!r}."
        )
    if not rules:
        raise ValueError("`rules` is empty. Pass a rule, such as PriceDropped(percent=10).")
    check_rule_names(rules)
    if "snapshots" not in history.keys_by_input_name or kind_of(history) is not HISTORY_KIND:
        raise ValueError(
            f"{history.key.to_user_string()} is not a product history. Pass an asset built by "
            "build_product_history_asset."
        )
    if price_list is not None:
        require_asset(price_list, "price_list")
    are_for_price_list = {isinstance(rule, PriceListRule) for rule in rules}
    if are_for_price_list != {price_list is not None}:
        raise ValueError(
            "Price-list rules, such as Undercut and BelowFloor, require `price_list`. Product "
            "rules cannot be used with `price_list`. Build a separate asset for each kind of rule."
        )


def _price_list_alerts(
    history: dg.AssetsDefinition,
    price_list: dg.AssetsDefinition,
    rules: Sequence[PriceListRule],
    arguments: Mapping[str, Any],
    shared: Mapping[str, Any],
) -> dg.AssetsDefinition:
    kind = kind_of(price_list)
    if kind is HISTORY_KIND or not COMPUTED.keys() <= kind.descriptions.keys():
        raise ValueError(
            f"{price_list.key.to_user_string()} is not a price-list history. Pass an asset built "
            'by build_history_asset(articles, key=["sku", "product_url"], tracked=["price", '
            '"currency"]).'
        )
    ins = {"history": all_partitions(history), "price_list": all_partitions(price_list)}

    @snapshot_asset({"ins": ins, **arguments}, **shared)
    def price_list_alerts(
        _run: SnapshotRun, _partition: str | None, history: Snapshots, price_list: Snapshots
    ) -> dg.MaterializeResult[PriceListAlertsUpdate]:
        said = {f"history {name}": each for name, each in history.metadata().items()}
        said |= {f"price_list {name}": each for name, each in price_list.metadata().items()}
        nothing = pl.LazyFrame(schema=HISTORY_SCHEMA)
        products = pl.concat([nothing, *history.frames()], how="diagonal_relaxed")
        # If there are no snapshots, `frame` raises the error for a missing snapshot.
        prices = pl.concat(price_list.frames() or [price_list.frame(None)], how="diagonal_relaxed")
        return dg.MaterializeResult(value=PriceListAlertsUpdate(rules, products, prices, said))

    return price_list_alerts


def _check_of(rule: AlertRule) -> Check:
    """Return the check that warns if too many products match a rule in the latest snapshot."""

    def judge(_subject: str, entries: Mapping[str, Any]) -> Verdict:
        found = entries.get(f"octogen/{rule.name}", 0)
        rows = entries.get(f"octogen/{rule.counted}", 0)
        share = rule.max_percent
        is_share = share is None or found > rows * share / 100
        text = (
            f"{found:,} of {count(rows, rule.row)} matched the rule {rule.name} in the latest "
            "snapshot."
        )
        return Verdict(not (found > rule.max_products and is_share), text, {"events": found})

    description = (
        f"The number of {rule.row}s that matched the rule {rule.name} in the latest snapshot is "
        "within the limits."
    )
    return Check(description, judge=judge, warns=True)
