"""The checks of each partition of a run."""

import threading
from typing import Any

import dagster as dg
import pytest

from octogen_dagster import build_snapshot_checks
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.projects import Project
from tests.promises.runs.ranges.helpers import (
    CATALOGS,
    KEY,
    automated_brands,
    checks_of,
    lines_of,
    of_the_rows,
    products_of_a_range,
    run,
)
from tests.results import failure, stored


@pytest.mark.slow
def test_checks_are_evaluated_for_each_partition_as_it_is_done(
    project: Project, sandbox: Sandbox
) -> None:
    project.instance.add_dynamic_partitions("octogen_catalogs", ["shop6"])
    sandbox.inject(Fault("price", 0, page=2, times=1))
    products = products_of_a_range()
    checks = build_snapshot_checks(products, max_bad_price_percent=0)
    keys = [*CATALOGS, "shop6"]
    result = run(project, sandbox, [products, *checks], keys, concurrency=1)

    assert not result.success
    evaluations = checks_of(result)
    of_rows = {(each.check_name, each.partition): each for each in evaluations if each.partition}
    assert sorted(of_rows) == of_the_rows(CATALOGS)
    failed = [key for key, each in of_rows.items() if not each.passed]
    assert failed == [("prices", "shop0")]
    assert "products, partition 'shop0' has bad rows" in str(of_rows[failed[0]].description)
    (fresh,) = [each for each in evaluations if each.check_name == "fresh"]
    assert fresh.partition is None
    assert fresh.metadata["octogen/fresh"].value == 6


def test_only_the_checks_that_a_run_requests_are_evaluated(
    project: Project, sandbox: Sandbox
) -> None:
    products = products_of_a_range()
    checks = build_snapshot_checks(products)
    selection = dg.AssetSelection.assets(products).without_checks()
    selection |= dg.AssetSelection.checks(dg.AssetCheckKey(KEY, "nulls"))
    result = run(project, sandbox, [products, *checks], CATALOGS[:2], selection=selection)
    assert result.success
    found = checks_of(result)
    assert {(each.check_name, each.partition) for each in found} == {
        ("nulls", "shop0"),
        ("nulls", "shop1"),
    }


def test_checks_alone_name_the_partitions_without_a_snapshot_and_evaluate_the_others(
    project: Project, sandbox: Sandbox
) -> None:
    products = products_of_a_range()
    checks = build_snapshot_checks(products, max_age=None)
    assert run(project, sandbox, [products], CATALOGS[1:3]).success
    selection = dg.AssetSelection.checks_for_assets(products)
    alone = run(project, sandbox, [products, *checks], CATALOGS[:4], selection=selection)
    found = checks_of(alone)
    assert sorted((each.check_name, each.partition) for each in found) == of_the_rows(CATALOGS[1:3])
    text = failure(alone)
    assert "The checks for 2 of 4 partitions of products could not be evaluated" in text
    assert "'shop0': The snapshot of products, partition 'shop0' does not exist" in text
    assert "'shop3': The snapshot of products, partition 'shop3' does not exist" in text


@pytest.mark.long
@pytest.mark.parametrize("bad", [[], ["shop0"]], ids=["all pass", "one fails"])
def test_an_automation_condition_waits_for_the_checks_of_each_partition(
    project: Project, sandbox: Sandbox, bad: list[str]
) -> None:
    products = products_of_a_range()
    checks = build_snapshot_checks(products, max_bad_price_percent=0, blocking=True)
    brands = automated_brands(products)
    resources = stored(project.folder, project.octogen)
    definitions = dg.Definitions([products, brands], asset_checks=checks, resources=resources)
    before = dg.evaluate_automation_conditions(definitions, project.instance)
    for _ in bad:
        sandbox.inject(Fault("price", 0, page=2, times=1))
    assert run(project, sandbox, [products, *checks], CATALOGS, concurrency=1).success
    after = dg.evaluate_automation_conditions(definitions, project.instance, cursor=before.cursor)
    assert after.get_requested_partitions(brands.key) == set(CATALOGS) - set(bad)


@pytest.mark.slow
def test_a_retry_evaluates_the_checks_that_raised_an_error(
    project: Project, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    products = products_of_a_range(retry_policy=dg.RetryPolicy(max_retries=1, delay=0))
    fetch, calls = project.instance.fetch_materializations, 0

    def fetch_materializations(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        # Snapshots are published in other threads than that of the checks.
        calls += threading.current_thread() is threading.main_thread()
        if calls == 1:
            calls += 1
            raise OSError("the database is away")
        return fetch(*arguments, **options)

    monkeypatch.setattr(project.instance, "fetch_materializations", fetch_materializations)
    checks = build_snapshot_checks(products, max_age=None)
    result = run(project, sandbox, [products, *checks], CATALOGS[:3], concurrency=1)
    assert result.success
    found = checks_of(result)
    assert sorted((each.check_name, each.partition) for each in found) == of_the_rows(CATALOGS[:3])
    (retry,) = [each for each in result.all_events if each.is_step_up_for_retry]
    text = str(retry.step_retry_data.error)
    assert "The checks for 1 of 3 partitions of products could not be evaluated" in text
    assert "'shop0': OSError: the database is away" in text
    assert "partitions of products failed" not in text
    assert sum(each.path == "/products/search" for each in sandbox.requests) == 1 + 3 * 3


@pytest.mark.slow
def test_a_run_says_where_its_checks_are_before_dagster_skips_their_step(
    project: Project, sandbox: Sandbox
) -> None:
    products = products_of_a_range()
    checks = build_snapshot_checks(products, max_age=None)
    result = run(project, sandbox, [products, *checks], CATALOGS[:2])
    lines = [each.user_message for each in project.instance.all_logs(result.run_id)]
    (said,) = [
        line
        for line in lines
        if line.startswith("This step evaluated the checks for each partition")
    ]
    (skipped,) = [line for line in lines if line.startswith("Skipping step products_checks")]
    assert lines.index(said) < lines.index(skipped)

    without = run(project, sandbox, [products], CATALOGS[:2])
    assert not [line for line in lines_of(project.instance, without.run_id) if "are above" in line]
