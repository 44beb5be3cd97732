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
    handled = (condition.newly_requested() | condition.newly_updated()).with_label("handled")
    # What a run was requested together with is read by that run when it is updated. What was
    # requested alone, at a tick that handled the run before, is not.
    alone = ~condition.executed_with_root_target()
    together = condition.will_be_requested()
    changed_alone = _any_deps_changed(alone)
    is_not_made = condition.newly_requested().since(condition.newly_updated())
    due = (
        condition.newly_missing()
        | changed_alone
        | condition.any_deps_match(together)
        | (is_not_made & condition.any_deps_match(condition.newly_updated()))
    ).since(handled)
    missed = condition.any_deps_match(condition.newly_requested()) & ~condition.newly_requested()
    updated_alone = _any_deps_changed(alone & ~together.since(_after_update())) | (
        changed_alone & missed.since(condition.newly_requested())
    )
    requested = condition.newly_requested() | condition.newly_requested().since(_after_update())
    meanwhile = (updated_alone & requested).since(condition.newly_requested() & ~updated_alone)
    followed: Condition = (
        condition.in_latest_time_window()
        & (due | meanwhile.with_label("updated_meanwhile"))
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
    changed = condition.any_deps_match(condition.data_version_changed() & where)
    updated = condition.any_deps_match(condition.newly_updated() & where)
    return changed | updated.ignore(dg.AssetSelection.tag(SNAPSHOT_TAG, ""))


def _after_update() -> Any:
    """True at the tick after one that saw an update: `since` forgets what comes with its reset."""
    return (~dg.AutomationCondition.newly_updated()).newly_true()


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
