"""Automation conditions of assets that follow others."""

from typing import Any

import dagster as dg

Condition = dg.AutomationCondition[dg.AssetKey]

SNAPSHOT_TAG = "octogen/snapshot"
"""The tag of an asset whose data version stays while its rows do, whatever kinds a user gives."""


def follow_upstream() -> Condition:
    """The condition of an asset that follows what it is made from.

    It is `dagster.AutomationCondition.eager()`, and it also requests the partitions that were
    missing when automation was switched on: `eager()` waits for the next update of those, so what
    follows a backfill would never begin. A partition is requested once what is upstream of it is
    there, and again when that is updated, also while a run that was requested is under way, which
    `eager()` forgets. A snapshot with the same rows as before is no update, unless what was
    requested is still not made. One whose run fails is not requested again before.
    """
    condition: Any = dg.AutomationCondition
    requested, updated = condition.newly_requested(), condition.newly_updated()
    together = condition.will_be_requested()
    alone = ~condition.executed_with_root_target()
    changed_alone = _any_deps_changed(alone)
    is_not_made = requested.since(updated) & condition.any_deps_match(updated)
    due = condition.newly_missing() | changed_alone | condition.any_deps_match(together)
    # What is requested together is made by one run, upstream first. Dagster itself knows so only of
    # the last partition of a run. What was requested alone, while this asset could not be, is not.
    changed = _any_deps_changed(alone & ~_until_updated(together, together | requested))
    missed = condition.any_deps_match(requested) & ~requested
    changed_or_missed = changed | (changed_alone & missed.since(requested))
    # A run reads what is upstream at some time between its request and its end.
    meanwhile = changed_or_missed & _until_updated(requested, requested)
    # Dagster keeps the state of a `since` by the names of its operands, so no two have the same.
    followed: Condition = (
        condition.in_latest_time_window()
        & (
            (due | is_not_made).since((requested | updated).with_label("handled"))
            | meanwhile.since(requested & ~changed).with_label("updated_meanwhile")
        )
        & ~condition.any_deps_missing()
        & ~condition.any_deps_in_progress()
        & ~condition.in_progress()
    ).with_label("follow_upstream")
    return followed


def _any_deps_changed(where: Any) -> Any:
    """True if something upstream was updated where a condition holds, and is not what it was.

    The data version of a snapshot tells. Other assets may be reported without one.
    """
    condition: Any = dg.AutomationCondition
    snapshots = dg.AssetSelection.tag(SNAPSHOT_TAG, "")
    changed = condition.any_deps_match(condition.data_version_changed() & where)
    updated = condition.any_deps_match(condition.newly_updated() & where)
    return changed.allow(snapshots) | updated.ignore(snapshots)


def _until_updated(begins: Any, goes_on: Any) -> Any:
    """True from a tick on, up to the one that sees an update, and longer while it goes on.

    `since` forgets what comes at the tick of its reset, so the reset is at the tick after that.
    """
    after_update = (~dg.AutomationCondition.newly_updated()).newly_true()
    return begins.since(after_update & ~goes_on)


def wait_only_for_latest(condition: Condition) -> Condition:
    """Make a condition for the latest time wait for no snapshot of an earlier time."""
    latest = dg.AutomationCondition.in_latest_time_window()
    if latest not in condition.children:
        return condition
    deps_missing_now: Any = dg.AutomationCondition.any_deps_match(
        dg.AutomationCondition.missing() & latest
    )
    return condition.replace(dg.AutomationCondition.any_deps_missing(), deps_missing_now)


def wait_for_history(condition: Condition, products: dg.AssetKey) -> Condition:
    """Make a condition follow a history of products once it has the products of a partition.

    The history of a catalog is one for all times, so it may be there before a partition is.
    """
    of_products = dg.AssetSelection.assets(products)
    missing: Any = dg.AutomationCondition.any_deps_missing()
    updated: Any = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.newly_updated())
    followed: Any = condition
    if hasattr(condition, "ignore"):  # a condition without upstream assets has none
        followed = followed.ignore(of_products)
    is_unread = updated.allow(of_products).since(updated.ignore(of_products))
    waiting: Condition = followed & ~missing.allow(of_products) & ~is_unread
    return waiting
