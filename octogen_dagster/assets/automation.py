"""Automation conditions for downstream assets."""

from typing import Any

import dagster as dg

Condition = dg.AutomationCondition[dg.AssetKey]

SNAPSHOT_TAG = "octogen/snapshot"
"""The tag on assets whose data version changes only if their rows change.

A kind would not be reliable, because users can replace an asset's kinds.
"""


def follow_upstream() -> Condition:
    """Return the automation condition for a downstream asset.

    The condition extends `dagster.AutomationCondition.eager()` in three ways:

    * It requests partitions that were missing when automation was switched on, for example after a
      backfill. `eager()` waits for the next upstream update.
    * It notices upstream updates that happen while a requested run is in progress.
    * A snapshot with the same rows as before does not count as an update, unless the previously
      requested run did not succeed. A failed run is requested again at the next upstream update.
    """
    condition: Any = dg.AutomationCondition
    requested, updated = condition.newly_requested(), condition.newly_updated()
    in_this_tick = condition.will_be_requested()
    by_other_run = ~condition.executed_with_root_target()
    changed_by_other_run = _any_deps_changed(by_other_run)
    unfulfilled = requested.since(updated) & condition.any_deps_match(updated)
    due = condition.newly_missing() | changed_by_other_run | condition.any_deps_match(in_this_tick)
    # One run materializes all assets that a tick requests, upstream assets first. Dagster takes
    # that into account only for the run's last partition. An upstream asset that was requested
    # while this asset could not be requested is materialized in a run without this asset.
    without_this = by_other_run & ~_until_updated(in_this_tick, in_this_tick | requested)
    changed = _any_deps_changed(without_this)
    missed = condition.any_deps_match(requested) & ~requested
    changed_or_missed = changed | (changed_by_other_run & missed.since(requested))
    # A run reads its upstream assets at some time between its request and its end.
    meanwhile = changed_or_missed & _until_updated(requested, requested)
    # Dagster stores a `since` condition's state by its operands' labels, so labels are unique.
    followed: Condition = (
        condition.in_latest_time_window()
        & (
            (due | unfulfilled).since((requested | updated).with_label("handled"))
            | meanwhile.since(requested & ~changed).with_label("updated_meanwhile")
        )
        & ~condition.any_deps_missing()
        & ~condition.any_deps_in_progress()
        & ~condition.in_progress()
    ).with_label("follow_upstream")
    return followed


def _any_deps_changed(where: Any) -> Any:
    """A condition that is true if an upstream asset's data version changed while `where` was true.

    Upstream assets other than snapshots might have no data version, so any update counts.
    """
    condition: Any = dg.AutomationCondition
    snapshots = dg.AssetSelection.tag(SNAPSHOT_TAG, "")
    changed = condition.any_deps_match(condition.data_version_changed() & where)
    updated = condition.any_deps_match(condition.newly_updated() & where)
    return changed.allow(snapshots) | updated.ignore(snapshots)


def _until_updated(begins: Any, goes_on: Any) -> Any:
    """A condition that becomes true when `begins` is true, and stays true until the next update.

    An update does not reset the condition while `goes_on` is true. `since` ignores a trigger in the
    tick of a reset, so the reset is delayed by one tick.
    """
    after_update = (~dg.AutomationCondition.newly_updated()).newly_true()
    return begins.since(after_update & ~goes_on)


def wait_only_for_latest(condition: Condition) -> Condition:
    """Change a condition so that it does not wait for partitions in earlier time windows."""
    latest = dg.AutomationCondition.in_latest_time_window()
    if latest not in condition.children:
        return condition
    deps_missing_now: Any = dg.AutomationCondition.any_deps_match(
        dg.AutomationCondition.missing() & latest
    )
    return condition.replace(dg.AutomationCondition.any_deps_missing(), deps_missing_now)


def wait_for_history(condition: Condition, products: dg.AssetKey) -> Condition:
    """Change a condition so that it waits until the history contains a partition's products.

    A catalog has a single history for all time partitions, so the history can exist before it
    contains a new partition's products.
    """
    of_products = dg.AssetSelection.assets(products)
    missing: Any = dg.AutomationCondition.any_deps_missing()
    updated: Any = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.newly_updated())
    followed: Any = condition
    if hasattr(condition, "ignore"):  # conditions without upstream assets have no `ignore`
        followed = followed.ignore(of_products)
    is_unread = updated.allow(of_products).since(updated.ignore(of_products))
    waiting: Condition = followed & ~missing.allow(of_products) & ~is_unread
    return waiting
