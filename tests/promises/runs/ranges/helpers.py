"""Runs that have a range of catalogs."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from octogen_dagster import build_product_brands_asset, build_products_asset, catalog_partitions
from tests.projects import Project
from tests.promises.runs.range_runs import single_run
from tests.results import Server, octogen_at, of_range

CATALOGS = [f"shop{number}" for number in range(6)]

KEY = dg.AssetKey("products")


SINGLE = single_run()
with warnings.catch_warnings():
    warnings.simplefilter("ignore", dg.BetaWarning)
    THREE = dg.BackfillPolicy.multi_run(3)


def products_of_a_range(**options: Any) -> dg.AssetsDefinition:
    """An asset whose run may have all catalogs."""
    given = {"partitions_def": catalog_partitions, "backfill_policy": SINGLE, **options}
    return build_products_asset("products", **given)


def run(
    project: Project,
    server: Server,
    assets: Sequence[Any],
    keys: Sequence[str],
    *,
    selection: Any = None,
    tags: Mapping[str, str] | None = None,
    **settings: Any,
) -> dg.ExecuteInProcessResult:
    """Materialize the partitions from the first of the keys to the last one in a run."""
    return project.run(
        assets,
        octogen_at(server, **{"attempts": 1, **settings}),
        tags={**of_range(keys[0], keys[-1]), **(tags or {})},
        selection=selection,
        raise_on_error=False,
    )


def reported(
    instance: dg.DagsterInstance, key: dg.AssetKey = KEY, run_id: str | None = None
) -> dict[str | None, dg.AssetMaterialization]:
    """Each materialization of an asset by its partition, of which none has two in a run."""
    records = instance.fetch_materializations(key, limit=1000).records
    events = [each for each in records if run_id in (None, each.run_id)]
    found = {each.partition_key: each.asset_materialization for each in events}
    assert len(found) == len(events)
    return {partition: event for partition, event in found.items() if event}


def checks_of(result: dg.ExecuteInProcessResult) -> list[dg.AssetCheckEvaluation]:
    """The results of the checks of a run, in order."""
    is_check = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    events = [each for each in result.all_events if each.event_type is is_check]
    return [each.asset_check_evaluation_data for each in events]


def of_the_rows(keys: Sequence[str]) -> list[tuple[str, str]]:
    """The checks that each partition has."""
    return sorted((name, key) for name in ("rows_within_bounds", "nulls", "prices") for key in keys)


def automated_brands(products: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """Brands of the products that are requested once the checks of these have passed."""
    conditions = dg.AutomationCondition
    condition = conditions.eager() & conditions.all_deps_blocking_checks_passed()
    return build_product_brands_asset(products, automation_condition=condition)


def lines_of(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    return [each.user_message for each in instance.all_logs(run_id) if not each.is_dagster_event]
