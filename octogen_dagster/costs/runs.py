"""read_costs: collect the costs reported by a Dagster instance's runs.

A materialization's metadata reports the cost of its read. A run's tag reports the spending of each
step, including attempts that published nothing. A retried run starts with a copy of the previous
run's tag.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster.api.spending import dollars
from octogen_dagster.costs.table import Charge, costs_table
from octogen_dagster.snapshots.budget import Spent, own_spent, spent
from octogen_dagster.snapshots.partitions import catalog_of
from octogen_dagster.snapshots.publication import REPORTED_BEFORE, parent_of

_RECORDS_AT_ONCE = 1000
_TIME = re.compile(r"\d{4}-\d\d-\d\d")
_Published = Mapping[tuple[str, str | None], Spent]
"""The dollars reported by materializations, keyed by run and step."""


def read_costs(instance: dg.DagsterInstance, since: datetime) -> pl.DataFrame:
    """Return the costs since the start of the given day (UTC)."""
    since = since.replace(hour=0, minute=0, second=0, microsecond=0)
    runs = [each for each in _updated_runs(instance, since) if spent(each.dagster_run.tags)]
    # A run that began before `since` might have reported some of its costs by then.
    begin = min([since, *(each.create_timestamp for each in runs)])
    charges, published = list[Charge](), defaultdict[tuple[str, str | None], Spent](Spent)
    for asset in _reporting_assets(instance, begin):
        for record in _materializations(instance, asset, begin):
            if charge := _charge(record):
                charges.append(charge)
                published[record.run_id, record.event_log_entry.step_key] += charge.spent
    charges += _unpublished_charges(instance, runs, published)
    return costs_table(each for each in charges if each.at >= since)


def _updated_runs(instance: dg.DagsterInstance, since: datetime) -> Iterator[dg.RunRecord]:
    updated, cursor = dg.RunsFilter(updated_after=since), None
    while found := instance.get_run_records(updated, limit=_RECORDS_AT_ONCE, cursor=cursor):
        yield from found
        cursor = found[-1].dagster_run.run_id


def _reporting_assets(instance: dg.DagsterInstance, since: datetime) -> Iterator[dg.AssetKey]:
    """Yield the assets whose materializations might report costs.

    The latest materialization must have Octogen metadata or be manual. A manual materialization
    does not show whether earlier materializations had costs. For all other assets, the spending is
    counted from the run tags.
    """
    for record in instance.get_asset_records():
        last = record.asset_entry.last_materialization
        event = last.asset_materialization if last else None
        if last and event and last.timestamp >= since.timestamp():
            has_metadata = any(name.startswith("octogen/") for name in event.metadata)
            if has_metadata or not last.run_id:
                yield event.asset_key


def _materializations(
    instance: dg.DagsterInstance, asset: dg.AssetKey, since: datetime
) -> Iterator[dg.EventLogRecord]:
    wanted, cursor = dg.AssetRecordsFilter(asset, after_timestamp=since.timestamp()), None
    while True:
        found = instance.fetch_materializations(wanted, _RECORDS_AT_ONCE, cursor, ascending=True)
        yield from found.records
        if not found.has_more:
            return
        cursor = found.cursor


def _charge(record: dg.EventLogRecord) -> Charge | None:
    """Return the cost that a materialization reports, or None if it reports no new cost."""
    event = record.asset_materialization
    if event is None or REPORTED_BEFORE in event.metadata:
        return None
    values: dict[str, Any] = {name: entry.value for name, entry in event.metadata.items()}
    requests = (values.get("octogen/metrics") or {}).get("charged_requests", 0)
    names = ("cost_usd", "possibly_charged_usd", "billed_bytes")
    cost, possibly, billed = (values.get(f"octogen/{name}", 0) for name in names)
    if not (requests or cost or possibly or billed):
        return None
    at = datetime.fromtimestamp(record.timestamp, UTC)
    asset = event.asset_key.to_user_string()
    amounts = Spent(dollars(cost), dollars(possibly))
    return Charge(at, asset, _catalog(event.partition), requests, amounts, billed)


def _unpublished_charges(
    instance: dg.DagsterInstance, runs: Sequence[dg.RunRecord], published: _Published
) -> Iterator[Charge]:
    """Yield the spending that run tags record but no materialization has reported."""
    known = {each.dagster_run.run_id: each.dagster_run for each in runs}
    others = {parent for run in known.values() if (parent := parent_of(run))} - known.keys()
    for first in range(0, len(others), _RECORDS_AT_ONCE):
        some = sorted(others)[first : first + _RECORDS_AT_ONCE]
        known |= {each.run_id: each for each in instance.get_runs(dg.RunsFilter(run_ids=some))}
    for record in runs:
        run = record.dagster_run
        own = own_spent(run, known.get(parent_of(run) or ""))
        unpublished = {
            step: rest
            for step, total in own.items()
            if (rest := total - published.get((run.run_id, step), Spent())) != Spent()
        }
        if unpublished:
            at = datetime.fromtimestamp(record.end_time or record.update_timestamp.timestamp(), UTC)
            planned = _planned(instance, run.run_id)
            for step, rest in unpublished.items():
                asset, partition = planned.get(step, (step, None))
                yield Charge(at, asset, _catalog(partition), 0, rest, 0)


def _planned(instance: dg.DagsterInstance, run_id: str) -> Mapping[str, tuple[str, str | None]]:
    """Map each step to its asset and partition. The partition is None if the step has several."""
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    planned: dict[str, tuple[str, str | None]] = {}
    for entry in instance.all_logs(run_id, of_type=kind):
        event = entry.dagster_event
        if entry.step_key and event and event.asset_key:
            asset = event.asset_key.to_user_string()
            partition = None if entry.step_key in planned else event.partition
            planned[entry.step_key] = asset, partition
    return planned


def _catalog(partition: str | None) -> str | None:
    """Extract the catalog from a partition key by removing the time."""
    parts = [part for part in (partition or "").split("|") if not _TIME.match(part)]
    return catalog_of("|".join(parts)) if any(parts) else None
