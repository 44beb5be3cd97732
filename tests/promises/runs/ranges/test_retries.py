"""A run of several partitions pays for none of them twice."""

import re
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import build_costs_asset, build_snapshot_checks, catalog_partitions
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.forked import processes
from tests.projects import Project
from tests.promises.paged_service import PagedService
from tests.promises.runs import range_runs
from tests.promises.runs.ranges.helpers import (
    CATALOGS,
    KEY,
    SINGLE,
    automated_brands,
    products_of_a_range,
    reported,
    run,
)
from tests.results import failure, metadata, stored

RETRIED = dg.RetryPolicy(max_retries=2, delay=0)


@pytest.mark.long
def test_a_retry_knows_of_more_partitions_than_dagster_returns_records_at_once(
    project: Project, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_LIMIT_GET_EVENT_RECORDS", "500")
    keys = [f"key{number}" for number in range(502)]

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(keys), backfill_policy=SINGLE)
    def titles(context: dg.AssetExecutionContext) -> dict[str, pl.LazyFrame]:
        if context.retry_number == 0:
            for key in keys[1:]:
                context.log_event(dg.AssetMaterialization("titles", partition=key))
            raise dg.RetryRequested(seconds_to_wait=0)
        return dict.fromkeys(keys, pl.LazyFrame({"a": [1]}))

    assert run(project, sandbox, [titles], keys).success
    assert [path.name for path in project.folder.rglob("*.parquet")] == ["key0.parquet"]


@pytest.mark.slow
def test_a_retry_does_not_pay_again_for_what_failed_for_good(
    project: Project, sandbox: Sandbox
) -> None:
    products = products_of_a_range(retry_policy=RETRIED)
    assert run(project, sandbox, [products], CATALOGS[:1]).success
    sandbox.grant("shop0", products=120)
    before = len(sandbox.requests)
    sandbox.inject(Fault("status", 503, times=1, path="/products/search", page=3))
    result = run(project, sandbox, [products], CATALOGS[:2], concurrency=1)
    assert "1 of 2 partitions of products failed. The other 1 are published" in failure(result)
    assert "'shop0': " in failure(result)
    searches = [each for each in sandbox.requests[before:] if each.path == "/products/search"]
    assert sum(each.status == 503 for each in searches) == 1
    assert sum(each.body == {"limit": 100, "catalogs": ["shop0"]} for each in searches) == 1
    assert set(reported(project.instance, KEY, result.run_id)) == {"shop1"}


@pytest.mark.parametrize(("status", "url"), [(402, True), (401, False), (403, False)])
def test_an_error_of_the_key_or_its_credit_ends_the_run(
    project: Project, sandbox: Sandbox, status: int, url: bool
) -> None:
    products = products_of_a_range(retry_policy=RETRIED)
    assert run(project, sandbox, [products], CATALOGS[:1]).success
    before = len(sandbox.requests)
    sandbox.inject(Fault("status", status, path="/products/search"))
    result = run(project, sandbox, [products], CATALOGS, concurrency=2)
    refused = [each for each in sandbox.requests[before:] if each.status == status]
    assert 1 <= len(refused) <= 3
    text = failure(result)
    assert "were not read, because they would fail with the same error" in text
    assert "Not read:\n" in text
    assert "'shop5'" in text
    (event,) = result.get_step_failure_events()
    data = event.step_failure_data.user_failure_data
    assert data
    assert ("octogen/top_up_url" in data.metadata) is url


def test_a_service_that_is_down_is_not_asked_for_each_catalog(project: Project) -> None:
    keys = [f"shop{number}" for number in range(20)]
    products = products_of_a_range(
        partitions_def=dg.StaticPartitionsDefinition(keys),
        retry_policy=dg.RetryPolicy(max_retries=0),
    )
    with Sandbox(catalogs=dict.fromkeys(keys, 10), generation="current") as sandbox:
        sandbox.inject(Fault("status", 503, path="/products/search"))
        text = failure(run(project, sandbox, [products], keys, concurrency=1))
    assert (
        "16 of 20 partitions of products failed. 4 were not read, because 16 partitions in a row"
        in text
    )
    assert "Not read:\n'shop16'\n'shop17'\n'shop18'\n'shop19'" in text


@pytest.mark.long
@pytest.mark.parametrize("by", ["a retry of the step", "a re-execution"])
def test_neighbours_that_are_broken_keep_no_catalog_unread(project: Project, by: str) -> None:
    keys = [f"shop{number:02}" for number in range(20)]
    products = products_of_a_range(
        partitions_def=dg.StaticPartitionsDefinition(keys),
        retry_policy=RETRIED if by == "a retry of the step" else None,
    )
    with Sandbox(catalogs=dict.fromkeys(keys, 10), generation="current") as sandbox:
        for key in keys[:16]:
            sandbox.inject(Fault("status", 503, path="/products/search", catalog=key))
        result = run(project, sandbox, [products], keys, concurrency=1)
        if by == "a re-execution":
            assert not reported(project.instance)
            result = again(result, project, sandbox, [products], keys)
    assert sorted(reported(project.instance), key=str) == keys[16:]
    assert "16 of 20 partitions of products failed. The other 4 are published" in failure(result)


def again(
    result: dg.ExecuteInProcessResult, project: Project, *arguments: Any, **settings: Any
) -> dg.ExecuteInProcessResult:
    """Execute a run again, as Dagster does."""
    tags = {"dagster/parent_run_id": result.run_id, "dagster/root_run_id": result.run_id}
    return run(project, *arguments, tags=tags, concurrency=1, **settings)


@pytest.mark.long
def test_a_run_that_is_executed_again_and_fails_shows_what_is_whole_as_such(
    project: Project, sandbox: Sandbox
) -> None:
    sandbox.inject(Fault("status", 503, path="/products/search", catalog="shop1"))
    products = products_of_a_range(retry_policy=None)
    brands = automated_brands(products)
    checks = build_snapshot_checks(products, blocking=True)
    resources = stored(project.folder, project.octogen)
    definitions = dg.Definitions([products, brands], asset_checks=checks, resources=resources)
    arguments = sandbox, [products, *checks], CATALOGS
    first = run(project, *arguments)
    asked = len(sandbox.requests)
    before = dg.evaluate_automation_conditions(definitions, project.instance)
    second = again(first, project, *arguments)
    third = again(second, project, *arguments)
    for result in (first, second, third):
        assert "1 of 6 partitions of products failed. The other 5 are" in failure(result)
    pages = [each for each in sandbox.requests[asked:] if each.status == 200]
    assert not [each for each in pages if each.path == "/products/search"]
    status = project.instance.get_status_by_partition(KEY, CATALOGS, catalog_partitions)
    assert status
    failed = [key for key in CATALOGS if status[key] == dg.AssetPartitionStatus.FAILED]
    assert failed == ["shop1"]
    whole = {key for key in CATALOGS if key != "shop1"}
    events = [reported(project.instance, KEY, each.run_id) for each in (first, third)]
    assert set(events[0]) == set(events[1]) == whole
    for key in whole:
        was, shown = (each[key].metadata for each in events)
        assert shown.keys() - was.keys() == {"octogen/first_reported_at"}
        assert {name: shown[name] for name in was} == was
        assert events[0][key].tags == events[1][key].tags
    # What follows waits for the checks of the last materialization.
    after = dg.evaluate_automation_conditions(definitions, project.instance, cursor=before.cursor)
    assert after.get_requested_partitions(brands.key) == whole


MAX_AGAIN = 26

"""Two segments of twelve pages, and two pages that are compared."""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[PagedService]:
    """A service of the catalogs of `range_runs`, each of 40 pages, and its settings."""
    catalogs = dict.fromkeys(range_runs.CATALOGS, 40 * range_runs.PAGE_SIZE)
    with PagedService(catalogs).running() as running:
        monkeypatch.setenv(range_runs.BASE_URL, running.base_url)
        monkeypatch.setenv(range_runs.API_KEY, running.api_key)
        monkeypatch.setenv(range_runs.BASE_DIR, str(tmp_path / "snapshots"))
        yield running


def spent(run: dg.DagsterRun | None) -> Decimal:
    assert run
    return Decimal(run.tags["octogen/spent_usd.products"])


@pytest.mark.long
def test_a_killed_run_is_retried_with_what_it_did_not_report(
    service: PagedService, tmp_path: Path
) -> None:
    home = str(tmp_path / "home")
    Path(home).mkdir()
    catalogs = range_runs.CATALOGS
    with dg.DagsterInstance.local_temp(home) as instance:
        for last in (catalogs[2], catalogs[5]):  # the killed run is killed again
            parents = [each.run_id for each in instance.get_runs(limit=1)]
            arguments = (home, range_runs.settings(), *parents)
            process = processes.Process(target=range_runs.execute, args=arguments)
            process.start()
            wait_for_page(20, last, service, process)
            if parents:
                wait_for_report(instance, process)
            process.kill()
            process.join(60)
        (killed, first) = instance.get_runs()
        assert (killed.status, first.status) == (dg.DagsterRunStatus.STARTED,) * 2
        done = {each for run in (killed, first) for each in reported(instance, KEY, run.run_id)}
        assert done < set(catalogs)
        before = {each: len(service.pages_of(each)) for each in catalogs}
        again = range_runs.run(instance, killed.run_id)
        assert again.success
        assert set(reported(instance, KEY, again.run_id)) == set(catalogs) - done
        total = Decimal("0.014") * len(service.searches)
        assert spent(instance.get_run_by_id(again.run_id)) >= total - 2 * 3 * 40 * Decimal("0.014")
        # A run that succeeded is no retry's business: all is read anew.
        pages = {each: service.pages_of(each) for each in catalogs}
        assert range_runs.run(instance, again.run_id).success
        anew = {each: len(service.pages_of(each)) - len(pages[each]) for each in catalogs}
    for catalog in catalogs:
        # A run that is killed once it has reported a catalog may leave pages of it.
        assert anew[catalog] == 40 or (catalog in done and anew[catalog] < 40)
        assert len(pages[catalog]) <= 40 + 2 * MAX_AGAIN
        assert catalog not in done or len(pages[catalog]) == before[catalog]
        rows = pl.read_parquet(tmp_path / "snapshots" / "products" / f"{catalog}.parquet")
        assert rows["uuid"].n_unique() == len(rows) == 40 * range_runs.PAGE_SIZE


@pytest.mark.slow
def test_a_killed_run_has_reported_what_it_spent_but_for_fifty_pages(
    service: PagedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, page_usd, killed_at = tmp_path / "home", Decimal("0.014"), 160
    home.mkdir()
    behind = threading.Event()
    with dg.DagsterInstance.local_temp(str(home)) as instance:

        def written() -> Decimal:
            (run,) = instance.get_runs()
            return Decimal(run.tags.get("octogen/spent_usd.products", "0"))

        def keep_up(*_: Any) -> None:
            """Send a page once the tag has all of them but fifty."""
            pages, deadline = len(service.searches), time.monotonic() + 60
            while pages >= 50 and written() < (pages - 50) * page_usd:
                if time.monotonic() > deadline:
                    behind.set()
                    return
                time.sleep(0.01)
            if pages >= killed_at:
                process.kill()

        monkeypatch.setattr(service, "change", keep_up)
        arguments = (str(home), range_runs.settings())
        process = processes.Process(target=range_runs.execute, args=arguments)
        process.start()
        process.join(120)
        assert not behind.is_set()
        assert len(service.searches) < 8 * 40
        spent_usd = written()
        assert (killed_at - 50) * page_usd <= spent_usd <= len(service.searches) * page_usd
        costs = Project(tmp_path / "costs", instance).run([build_costs_asset()])
        assert metadata(costs, "octogen_costs")["octogen/total_usd"] >= float(spent_usd)


@pytest.mark.long
@pytest.mark.parametrize("retries", [True, False], ids=["a retry", "another run"])
def test_a_killed_run_of_an_asset_of_ones_own_has_paid_for_nothing_in_vain(
    service: PagedService, tmp_path: Path, retries: bool
) -> None:
    home, catalogs = str(tmp_path / "home"), range_runs.CATALOGS
    Path(home).mkdir()
    process = processes.Process(
        target=range_runs.execute, args=(home, range_runs.settings()), kwargs={"is_own": True}
    )
    process.start()
    wait_for_page(20, catalogs[2], service, process)
    process.kill()
    process.join(60)
    with dg.DagsterInstance.local_temp(home) as instance:
        (killed,) = instance.get_runs()
        parent = killed.run_id if retries else None
        budget = 100.0 + retries  # Dagster keeps a job that is made with the same arguments
        again = range_runs.run(instance, parent, budget, is_own=True)
        assert again.success
        assert set(reported(instance, KEY, again.run_id)) == set(catalogs)
    for catalog in catalogs:
        pages = service.pages_of(catalog)
        assert set(pages) == set(range(1, 41))
        assert len(pages) <= 40 + (MAX_AGAIN if catalog == catalogs[2] else 0)
    assert not list((tmp_path / "snapshots").rglob("*.pages"))


def wait_for_report(instance: dg.DagsterInstance, process: Any) -> None:
    """Wait until the killed runs have reported a catalog."""
    deadline = time.monotonic() + 60
    while not instance.fetch_materializations(KEY, limit=1).records:
        assert process.is_alive(), "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def wait_for_page(page: int, catalog: str, service: PagedService, process: Any) -> None:
    deadline = time.monotonic() + 60
    while page not in service.pages_of(catalog):
        assert process.is_alive(), "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.long
def test_the_budget_holds_over_the_run_and_its_retries(
    service: PagedService, tmp_path: Path
) -> None:
    page_usd = Decimal("0.014")
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        stopped = range_runs.run(instance, budget_usd=float(150 * page_usd))
        assert len(service.searches) == 150
        done = reported(instance)
        assert 0 < len(done) <= 3
        made = instance.get_run_by_id(stopped.run_id)
        assert spent(made) == 150 * page_usd
        (event,) = [each for each in stopped.all_events if each.is_step_failure]
        text = str(event.step_failure_data.error)
        numbers = re.search(r"(\d) of 8 partitions of products failed. (\d) were not read", text)
        assert numbers
        failed, untried = (int(each) for each in numbers.groups())
        assert failed <= 3, "those that were under way"
        assert failed + untried == 8 - len(done)
        assert "the budget of $2.10 (" in text

        again = range_runs.run(instance, stopped.run_id, budget_usd=float(200 * page_usd))
        assert not again.success
        assert len(service.searches) == 200, "the retry has what the run has left"

        assert range_runs.run(instance, again.run_id, budget_usd=float(400 * page_usd)).success
        assert len(service.searches) == 8 * 40, "no page was paid for twice"
