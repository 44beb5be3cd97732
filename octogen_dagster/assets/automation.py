"""Automation conditions of assets that follow others."""

from collections.abc import Callable
from typing import Any

import dagster as dg

Condition = dg.AutomationCondition[dg.AssetKey]


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
    is_not_made = condition.newly_requested().since(condition.newly_updated())
    due = (
        condition.newly_missing()
        | _any_deps_changed(lambda changed: (changed & alone) | condition.will_be_requested())
        | (is_not_made & condition.any_deps_match(condition.newly_updated()))
    ).since(handled)
    missed = condition.any_deps_match(condition.newly_requested()) & ~condition.newly_requested()
    updated_alone = _any_deps_changed(
        lambda changed: changed & alone & ~condition.will_be_requested().since(_after_update())
    ) | (
        _any_deps_changed(lambda changed: changed & alone)
        & missed.since(condition.newly_requested())
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


def _any_deps_changed(condition_of: Callable[[Any], Any]) -> Any:
    """True if something upstream was updated: of our snapshots, if their data version changed.

    Other assets may have been reported without a data version. Dagster gives linked snapshots one.
    """
    condition: Any = dg.AutomationCondition
    kind = dg.AssetSelection.kind
    ours = kind("octogen") & kind("parquet") - kind("bigquery")
    changed = condition.any_deps_match(condition_of(condition.data_version_changed()))
    updated = condition.any_deps_match(condition_of(condition.newly_updated()))
    return changed | updated.ignore(ours)


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
