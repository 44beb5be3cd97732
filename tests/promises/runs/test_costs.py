"""The costs of a Dagster instance are what the service charged, however its runs ended."""

import os
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster._core.events import DagsterEvent, StepMaterializationData

import octogen_dagster as od
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.messages import Golden
from tests.postgresql import running_postgresql, server_program
from tests.projects import QUIET, Project
from tests.promises.runs.range_runs import single_run
from tests.promises.sharing.linked import BIGQUERY, linked
from tests.results import metadata, octogen_at, of_range
from tests.servers.bigquery import BigQueryServer, serving

ROOT = Path(__file__).parents[3]
TODAY = f"{datetime.now(UTC):%Y-%m-%d}"
CATALOGS = [f"shop{number}" for number in range(4)]
SEARCH = od.ProductSearch(page_size=50)


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance on disk, which is that of DAGSTER_HOME."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get() as opened:
        yield opened


def costs_of(project: Project, days: int = 30) -> pl.DataFrame:
    """The rows that the asset of costs makes of the instance."""
    project.run([od.build_costs_asset(days=days)], run_config=QUIET)
    return project.read("octogen_costs")


def costs_by(project: Project, name: str) -> dict[str, dict[str, Any]]:
    numbers = pl.col("requests", "cost_usd", "billed_bytes")
    sums = costs_of(project).group_by(name).agg(numbers.sum())
    return {row.pop(name): row for row in sums.to_dicts()}


def rerun_tags(instance: dg.DagsterInstance, run_id: str) -> dict[str, str]:
    """The tags of a re-execution, as Dagster makes them."""
    before = instance.get_run_by_id(run_id)
    assert before
    root = before.tags.get("dagster/root_run_id", run_id)
    return {**before.tags, "dagster/parent_run_id": run_id, "dagster/root_run_id": root}


@pytest.mark.slow
@pytest.mark.seed
def test_a_read_that_failed_and_its_retry_are_counted_once(project: Project) -> None:
    products = od.build_products_asset("octogen_products", SEARCH, od.catalog_partitions)
    project.instance.add_dynamic_partitions("octogen_catalogs", ["strada", "northpeak"])
    options: dict[str, Any] = {"partition_key": "northpeak", "raise_on_error": False}
    assert costs_of(project).is_empty()

    spent = od.OctogenResource(**settings(project), budget_usd=0.03)
    failed = project.run([products], spent, **options)
    today = date.fromisoformat(TODAY)
    assert costs_of(project).rows() == [(today, "octogen_products", "northpeak", 0, 0.028, 0, 0)]
    tags = rerun_tags(project.instance, failed.run_id)
    assert project.run([products], tags=tags, **options).success
    assert project.run([products], partition_key="strada").success
    assert costs_by(project, "catalog") == {
        "northpeak": {"requests": 3, "cost_usd": 0.07, "billed_bytes": 0},
        "strada": {"requests": 3, "cost_usd": 0.042, "billed_bytes": 0},
    }


def settings(project: Project) -> dict[str, Any]:
    assert project.octogen
    return {
        name: getattr(project.octogen, name) for name in ("api_key", "base_url", "catalog_source")
    }


def days_ago(days: int) -> str:
    return f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%d}"


@pytest.mark.slow
def test_bytes_are_those_that_google_bills_over_retries(project: Project, tmp_path: Path) -> None:
    snapshot = od.build_linked_snapshot_asset(linked, retry_policy=dg.RetryPolicy(max_retries=1))
    server = BigQueryServer()
    with serving(server, tmp_path):
        for server.page_failures in (0, 1):
            project.run([linked, snapshot], resources=BIGQUERY)
    rows = costs_by(project, "asset")
    billed = {"requests": 0, "cost_usd": 0, "billed_bytes": server.billed}
    assert rows == {"octogen_linked_snapshot": billed}
    assert server.billed == 20 * 2**20


def test_a_run_that_began_before_counts_from_midnight(project: Project) -> None:
    """What it spent before, and what it has published since, is not what it failed with."""
    now = datetime.now(UTC)
    before = now - timedelta(days=2)
    run = dg.DagsterRun(job_name="job", tags={"octogen/spent_usd.products": "1"})
    project.instance.add_run(run)
    with sqlite3.connect(Path(os.environ["DAGSTER_HOME"], "history", "runs.db")) as runs:
        runs.execute("UPDATE runs SET create_timestamp = datetime('now', '-3 day')")
    for at, catalog, cost_usd in ((before, "a", 0.5), (now, "b|2026-11-01", 0.2)):
        event = dg.AssetMaterialization(
            ["shops", "products"], partition=catalog, metadata={"octogen/cost_usd": cost_usd}
        )
        project.instance.report_dagster_event(
            DagsterEvent(
                "ASSET_MATERIALIZATION",
                "job",
                step_key="products",
                event_specific_data=StepMaterializationData(event),
            ),
            run.run_id,
            timestamp=at.timestamp(),
        )
    rows = costs_of(project, days=2).select("asset", "catalog", "cost_usd").rows()
    assert rows == [("products", None, 0.3), ("shops/products", "b", 0.2)]
    assert costs_of(project, days=6)["cost_usd"].sum() == pytest.approx(1)


@pytest.fixture
def anywhere(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """An instance in each database."""
    if request.param == "sqlite":
        yield request.getfixturevalue("instance")
        return
    if not (server_program("initdb") and server_program("postgres")):
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    storage = (ROOT / "deploy" / "dagster.yaml").read_text().split("\n\n")
    (tmp_path / "dagster.yaml").write_text(
        "\n".join(part for part in storage if part.startswith(("storage:", "telemetry:")))
    )
    with running_postgresql() as database:
        for name, value in {**database, "DAGSTER_HOME": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        with dg.DagsterInstance.get() as opened:
            yield opened


@pytest.mark.long
@pytest.mark.parametrize(
    ("seed", "anywhere"), [(0, "sqlite"), (1, "postgresql")], indirect=["anywhere"]
)
def test_the_sum_is_what_the_service_charged_however_runs_ended(
    anywhere: dg.DagsterInstance, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of one catalog and of several, which fail, are tried again and executed again."""
    monkeypatch.setattr("octogen_dagster.costs.runs._RECORDS_AT_ONCE", 3)
    policy, retried = single_run(), dg.RetryPolicy(max_retries=1, delay=0)
    products = od.build_products_asset(
        "products", SEARCH, od.catalog_partitions, backfill_policy=policy, retry_policy=retried
    )

    @dg.asset(partitions_def=od.catalog_partitions, backfill_policy=policy, retry_policy=retried)
    def mine(context: dg.AssetExecutionContext, octogen: od.OctogenResource) -> Any:
        found = {
            key: octogen.scan(SEARCH.model_copy(update={"catalogs": [key]}))
            for key in context.partition_keys
        }
        return found if len(found) > 1 else found[context.partition_keys[0]]

    anywhere.add_dynamic_partitions("octogen_catalogs", CATALOGS)
    chance, truth = random.Random(seed), {"products": 0.0, "mine": 0.0}
    ended: dict[str, tuple[dg.AssetsDefinition, dict[str, str]]] = {}
    with Sandbox(catalogs=dict.fromkeys(CATALOGS, 120), generation="current") as sandbox:
        for _ in range(12):
            asset = chance.choice([products, mine])
            first, last = sorted(chance.choices(CATALOGS, k=2))
            tags = of_range(first, last) if first < last else {"dagster/partition": first}
            if ended and chance.random() < 0.5:
                run_id, (asset, tags) = chance.choice([*ended.items()])
                tags = rerun_tags(anywhere, run_id)
            if chance.random() < 0.7:
                catalog, page = chance.choice(CATALOGS), chance.randint(1, 3)
                times = chance.choice([1, 2, None])
                sandbox.inject(Fault("status", 503, catalog=catalog, page=page, times=times))
            budget = chance.choice([None, None, 0.05, 100])
            octogen = octogen_at(sandbox, attempts=1, budget_usd=budget)
            before = sandbox.charged_usd
            result = Project(tmp_path / "s", anywhere, octogen).run(
                [asset],
                tags=tags,
                partition_key=tags.get("dagster/partition"),
                raise_on_error=False,
                run_config=QUIET,
            )
            truth[asset.key.path[-1]] += sandbox.charged_usd - before
            ended[result.run_id] = asset, tags
            sandbox.clear_faults()
    rows = costs_by(Project(tmp_path / "costs", anywhere), "asset")
    assert {asset: row["cost_usd"] for asset, row in rows.items()} == pytest.approx(truth)
    # Of what failed the requests are not known.
    assert 0 < sum(row["requests"] for row in rows.values()) * 0.014 < sum(truth.values())
    outcomes = Counter(
        run.is_success for run in anywhere.get_runs() if "dagster/parent_run_id" in run.tags
    )
    assert min(outcomes[True], outcomes[False]) > 0


@pytest.mark.slow
def test_the_asset_has_the_costs_of_each_catalog_and_its_own_are_none(
    golden: Golden, project: Project
) -> None:
    search = od.ProductSearch(catalogs=["strada"], page_size=60)
    products = od.build_products_asset("products", search)
    days = od.build_products_asset("days", SEARCH, od.catalog_days(days_ago(1)))
    details = od.build_product_details_asset(products, name="details")
    costs = od.build_costs_asset(key_prefix="money")
    project.instance.add_dynamic_partitions("octogen_catalogs", ["strada"])
    project.run([products, details])
    project.run([days], partition_key=dg.MultiPartitionKey({"catalog": "strada", "day": TODAY}))
    for _ in range(2):
        shown = metadata(project.run([costs]), "money__octogen_costs")
    rows = project.read("money/octogen_costs").rows()
    today = date.fromisoformat(TODAY)
    assert rows == [
        (today, "days", "strada", 3, 0.042, 0, 0),
        (today, "details", None, 120, 0.24, 0, 0),
        (today, "products", None, 2, 0.028, 0, 0),
    ]
    assert shown["octogen/total_usd"] == 0.31
    assert shown["octogen/summary"] == f"**$0.31** at Octogen since {today}"
    assert "| details | 120 | $0.24 |" in shown["octogen/preview"]
    with golden.raises(ValueError):
        od.build_costs_asset(days=0)


def test_the_events_of_other_assets_are_not_read(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dg.asset
    def foreign() -> dg.MaterializeResult[None]:
        return dg.MaterializeResult(metadata={"rows": 1})

    products = od.build_products_asset("products", od.ProductSearch(catalogs=["strada"]))
    project.run([products, foreign])
    # What is reported by hand hides whose the asset is.
    reported = dg.AssetMaterialization("products", metadata={"by": "hand"})
    project.instance.report_runless_asset_event(reported)
    read, fetch = list[dg.AssetKey](), project.instance.fetch_materializations

    def fetched(wanted: Any, *arguments: Any, **options: Any) -> Any:
        read.append(wanted.asset_key if isinstance(wanted, dg.AssetRecordsFilter) else wanted)
        return fetch(wanted, *arguments, **options)

    monkeypatch.setattr(project.instance, "fetch_materializations", fetched)
    costs = project.run([od.build_costs_asset()])
    assert (products.key in read, foreign.key in read) == (True, False)
    assert metadata(costs, "octogen_costs")["octogen/total_usd"] == 0.028
