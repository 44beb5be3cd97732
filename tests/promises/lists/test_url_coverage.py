"""A list's addresses and products are those of its last export, and what is not known is said."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

import octogen_dagster as od
from tests.api.servers import RawServer
from tests.messages import Golden
from tests.promises.lists.url_coverage_assets import (
    LIST_ID,
    SAID_AT,
    SHOP,
    Lists,
    chain,
    own_table,
    q3,
)
from tests.results import failure, is_retried, metadata, octogen_at
from tests.servers.bigquery import BigQueryServer, serving
from tests.servers.google import PROJECT, Google
from tests.servers.octogen import Octogen
from tests.servers.octogen_mcp import PRINCIPAL

EXCHANGE = "projects/octogen-catalog-exchange/locations/US/dataExchanges/catalogs_prod"
LISTING = f"{EXCHANGE}/listings/coverage_cul_01_v1"
DATASET = "octogen_coverage_cul_01_v1"
COVERAGE_VIEW = f"{PROJECT}.{DATASET}.url_coverage_v1"
PRODUCTS_VIEW = f"{PROJECT}.{DATASET}.products_current_v1"
EXPORTED_AT = datetime(2026, 11, 28, 6, 31, 12, tzinfo=UTC)
AT_ONCE = dg.RetryPolicy(max_retries=1)
OWN = own_table()
LONG = timedelta(days=100_000)

COVERAGE_FIELDS = [
    {"name": "url", "type": "STRING"},
    {"name": "normalized_url", "type": "STRING"},
    {"name": "covered", "type": "BOOLEAN"},
    {"name": "exported_at", "type": "TIMESTAMP"},
]
PRODUCT_FIELDS = [
    *({"name": name, "type": "STRING"} for name in ("uuid", "catalog_key", "product_url")),
    *({"name": name, "type": "STRING"} for name in ("title", "brand")),
    {"name": "current_price", "type": "FLOAT"},
    {"name": "in_stock", "type": "BOOLEAN"},
]


def covered_rows(*rows: tuple[str, bool]) -> list[list[str | None]]:
    at = str(int(EXPORTED_AT.timestamp() * 1_000_000))
    return [[path, f"{SHOP}{path}", str(covered).lower(), at] for path, covered in rows]


def product(uuid: str, path: str, price: float = 100.0) -> list[str | None]:
    url = path if "://" in path else f"{SHOP}{path}"
    return [uuid, "shop", url, f"Their {uuid}", "Acme", str(price), "true"]


EXPORTED = covered_rows(
    ("/products/boot", True),
    ("/collections/new/products/hat", True),
    ("/products/cap?color=red", True),
    ("/products/pen", False),
    ("/products/removed", True),
)
PRODUCTS = [
    product("u1", "/products/boot", 100),
    product("u2", "/products/boot", 110),
    product("u3", "/products/hat", 30),
    product("u4", "http://SHOP.example/products/cap/?color=blue", 8),
    product("u5", "/products/removed", 7),
]


@pytest.fixture
def lists() -> Lists:
    return Lists()


@pytest.fixture
def bigquery() -> BigQueryServer:
    server = BigQueryServer()
    server.share(COVERAGE_VIEW, schema={"fields": COVERAGE_FIELDS})
    server.share(PRODUCTS_VIEW, schema={"fields": PRODUCT_FIELDS})
    server.results = {
        "url_coverage_v1": (COVERAGE_FIELDS, EXPORTED),
        "products_current_v1": (PRODUCT_FIELDS, PRODUCTS),
    }
    return server


@pytest.fixture
def google() -> Google:
    return Google()


Run = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def resources(
    lists: Lists,
    bigquery: BigQueryServer,
    google: Google,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quick_google: None,
) -> Iterator[dict[str, Any]]:
    """The resources of the assets, as long as their servers run."""
    with (
        RawServer(lists) as service,
        google.running() as endpoint,
        serving(bigquery, tmp_path),
    ):
        yield {
            "octogen": octogen_at(service),
            "analytics_hub": od.AnalyticsHubResource(project=PROJECT, endpoint=endpoint),
            "bigquery": od.AnalyticsHubResource(project=PROJECT),
            "io_manager": od.ParquetSnapshotIOManager(base_dir=str(tmp_path / "stored")),
        }


@pytest.fixture
def run(
    resources: dict[str, Any], instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Materialize the list and its assets; `octogen` is the control plane, if there is one."""
    monkeypatch.setenv("OCTOGEN_MCP_ACCESS_TOKEN", "access-secret-0")

    def run(
        octogen: Octogen | None = None,
        upstream: dg.AssetsDefinition = q3,
        **arguments: Any,
    ) -> dg.ExecuteInProcessResult:
        export = {
            "grant_waits": (),
            "control_plane": octogen is not None,
            "max_age": LONG,
            **arguments.pop("export", {}),
        }
        snapshots = {"max_age": LONG, **arguments.pop("snapshots", {})}
        built = chain(
            upstream,
            export=export,
            snapshots=snapshots,
            offers={"max_age": None, **arguments.pop("offers", {})},
            **{"retry_policy": None} | arguments,
        )
        with (octogen or Octogen()).running() as url:
            control_plane = od.OctogenControlPlaneResource(principal=PRINCIPAL, url=url)
            return dg.materialize(
                [upstream, *built],
                instance=instance,
                raise_on_error=False,
                resources={
                    **resources,
                    "octogen_control_plane": control_plane,
                },
            )

    return run


def given(own: pl.DataFrame) -> dg.AssetsDefinition:
    """A list of these rows."""

    @dg.asset(name="q3", metadata={"octogen/url_list": "q3"})
    def url_list() -> dg.MaterializeResult[pl.DataFrame]:
        return dg.MaterializeResult(value=own, metadata={"octogen/url_list_id": LIST_ID})

    return url_list


def snapshot(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / "stored" / f"{name}.parquet")


def statuses(folder: Path) -> list[tuple[str, str]]:
    """The articles with the status of their address."""
    rows = snapshot(folder, "q3_matches").drop_nulls("sku").select("sku", "status")
    return rows.unique().sort("sku").rows()


def failed(result: dg.ExecuteInProcessResult) -> list[str]:
    return [each.check_name for each in result.get_asset_check_evaluations() if not each.passed]


@pytest.mark.slow
def test_each_row_of_the_own_table_has_the_status_of_its_address(
    golden: Golden, run: Run, tmp_path: Path
) -> None:
    result = run()
    assert result.success, failure(result)
    assert statuses(tmp_path) == [
        *((sku, "covered") for sku in ("A1", "A2", "B", "C")),
        *(("D", "not_covered"), ("E", "pending"), ("F", "rejected")),
    ]
    shown = metadata(result, "q3_matches")
    assert next(iter(shown)) == "octogen/summary"  # the page begins with a sentence
    golden("metadata", shown["octogen/summary"])
    numbers = [
        shown[f"octogen/{each}"] for each in ("covered", "not_covered", "pending", "rejected")
    ]
    assert numbers == [3, 1, 1, 1]
    assert shown["octogen/exported_at"] == EXPORTED_AT.timestamp()
    shown = metadata(result, "q3_export")
    assert shown["octogen/exported_at"] == datetime.fromisoformat(SAID_AT).timestamp()
    assert shown["octogen/linked_dataset"] == f"{PROJECT}.{DATASET}"
    shown = metadata(result, "q3_coverage")
    assert shown["octogen/source_table"] == COVERAGE_VIEW
    assert shown["octogen/billed_bytes"] == 10 * 2**20
    assert shown["octogen/query_dollars"] == 6e-05
    assert "t=url_coverage_v1" in shown["octogen/console"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "value"), [("DATETIME", "2026-11-28T06:31:12"), ("DATE", "2026-11-28")]
)
def test_the_time_of_the_export_is_utc_whatever_its_type(
    run: Run, bigquery: BigQueryServer, kind: str, value: str
) -> None:
    fields = [*COVERAGE_FIELDS[:3], {"name": "exported_at", "type": kind}]
    bigquery.share(COVERAGE_VIEW, schema={"fields": fields})
    bigquery.results["url_coverage_v1"] = (fields, [[*row[:3], value] for row in EXPORTED])
    result = run()
    assert result.success, failure(result)
    exported_at = datetime.fromisoformat(value).replace(tzinfo=UTC)
    assert metadata(result, "q3_matches")["octogen/exported_at"] == exported_at.timestamp()


@pytest.mark.slow
def test_products_are_joined_back_to_each_sku(run: Run, tmp_path: Path) -> None:
    result = run()
    matches = snapshot(tmp_path, "q3_matches")
    assert matches.select("uuid", "sku", "matched_by", "price", "current_price").rows()[3:6] == [
        ("u2", "A2", "url", 45.0, 110.0),
        ("u3", "B", "page", 20.0, 30.0),
        ("u4", "C", "page", 10.0, 8.0),
    ]
    assert matches.columns == [
        *("sku", "url", "status", "matched_by", "price", "own_title"),
        *(str(each["name"]) for each in PRODUCT_FIELDS),
    ]
    assert matches.filter(sku="B").select("title", "own_title", "url").row(0) == (
        "Their u3",
        "Own hat",
        f"{SHOP}/collections/new/products/hat",
    )
    assert metadata(result, "q3_matches")["octogen/unmatched_products"] == 1
    evaluated = {each.check_name for each in result.get_asset_check_evaluations()}
    assert evaluated == {"covered", "fresh", "not_empty", "expected_columns", "matched"}
    assert failed(result) == ["matched"]  # the cap of another color is in doubt


def list_of(*urls: str) -> dg.AssetsDefinition:
    """A list of addresses, which Octogen writes as they are sent but for a leading `www.`."""
    own = pl.DataFrame({"sku": [f"S{number}" for number in range(len(urls))], "url": urls})
    own = own.with_columns(
        normalized_url=pl.col("url").str.replace("//www.", "//", literal=True),
        rejected_code=pl.lit(None, pl.String),
        rejected_message=pl.lit(None, pl.String),
    )
    return given(own)


@pytest.mark.slow
@pytest.mark.parametrize("found", [8, 9])
def test_most_of_the_covered_addresses_have_a_product(
    golden: Golden, run: Run, bigquery: BigQueryServer, found: int
) -> None:
    paths = [f"/p{number}" for number in range(10)]
    exported = covered_rows(*((path, True) for path in paths), ("/none", False))
    bigquery.results["url_coverage_v1"] = (COVERAGE_FIELDS, exported)
    products = [product(path, path) for path in paths[:found]]
    bigquery.results["products_current_v1"] = (PRODUCT_FIELDS, products)
    result = run(upstream=list_of(*(f"{SHOP}{path}" for path in [*paths, "/none"])))
    (check,) = [
        each for each in result.get_asset_check_evaluations() if each.check_name == "matched"
    ]
    assert (check.passed, check.severity) == (found == 9, dg.AssetCheckSeverity.WARN)
    golden("checks", check.description)


@pytest.mark.slow
def test_a_list_that_was_not_exported_is_no_failure_and_replaces_nothing(
    run: Run, lists: Lists, google: Google, tmp_path: Path
) -> None:
    lists.exported_at = None
    lists.big_query, lists.status = False, "provisioning"
    result = run()
    assert result.success
    assert [each.asset_key.path for each in result.asset_observations_for_node("q3_export")] == [
        ["q3_export"]
    ]
    assert [file.name for file in (tmp_path / "stored").iterdir()] == ["q3.parquet"]
    assert google.calls == []
    lists.exported_at, lists.big_query, lists.status = SAID_AT, True, "active"
    assert run().success
    lists.exported_at = None  # a list that was deleted and made again
    result = run()
    assert result.success
    assert len(snapshot(tmp_path, "q3_matches")) == 10
    assert {each.asset_key for each in result.get_asset_materialization_events()} == {q3.key}


def test_an_own_column_that_is_there_already_is_told_apart(
    golden: Golden, run: Run, tmp_path: Path
) -> None:
    own = OWN.with_columns(matched_by=pl.lit("hand"), status=pl.lit("sold"))
    assert run(upstream=given(own)).success
    matches = snapshot(tmp_path, "q3_matches").filter(sku="A1", uuid="u1")
    names = ("matched_by", "own_matched_by", "status", "own_status")
    assert matches.select(names).row(0) == ("url", "hand", "covered", "sold")
    twice = OWN.with_columns(own_title=pl.lit("hand"))
    result = run(upstream=given(twice), retry_policy=AT_ONCE)
    golden("errors", failure(result))
    assert not is_retried(result)


@pytest.mark.parametrize("column", ["covered", "product_url"])
def test_a_column_by_which_addresses_are_joined_is_missed_by_name(
    golden: Golden, run: Run, bigquery: BigQueryServer, column: str
) -> None:
    for view, (fields, rows) in bigquery.results.items():
        kept = [place for place, each in enumerate(fields) if each["name"] != column]
        bigquery.results[view] = (
            [fields[place] for place in kept],
            [[row[place] for place in kept] for row in rows],
        )
    result = run(retry_policy=AT_ONCE)
    golden("errors", failure(result))
    assert not is_retried(result)


@pytest.mark.slow
def test_covered_addresses_without_any_product_publish_nothing(
    golden: Golden, run: Run, bigquery: BigQueryServer, tmp_path: Path
) -> None:
    assert run().success
    bigquery.results["products_current_v1"] = (PRODUCT_FIELDS, [])
    golden("errors", failure(run()))
    message = failure(run(offers={"min_rows_percent": 0}))
    golden("errors", message)
    assert len(snapshot(tmp_path, "q3_matches")) == 10
    bigquery.results["url_coverage_v1"] = (
        COVERAGE_FIELDS,
        covered_rows(*((path, False) for path in ("/products/boot", "/products/pen", "/1"))),
    )
    result = run(offers={"min_rows_percent": 0})
    assert result.success
    assert snapshot(tmp_path, "q3_matches")["uuid"].drop_nulls().is_empty()
    assert failed(result) == ["not_empty", "covered"]


@pytest.mark.slow
def test_the_dataset_is_linked_as_by_linked_datasets(
    run: Run, google: Google, bigquery: BigQueryServer
) -> None:
    """With a place, waits for the grant and a control plane."""
    for view, fields in (
        ("url_coverage_v1", COVERAGE_FIELDS),
        ("products_current_v1", PRODUCT_FIELDS),
    ):
        bigquery.share(f"{PROJECT}.q3.{view}", schema={"fields": fields})

    def arrives(method: str) -> None:
        google.granted = google.granted or method == "TestIamPermissions"

    google.granted, google.on_answer = False, arrives
    listing = LISTING.replace("octogen-catalog-exchange/locations/US", "elsewhere/locations/EU")
    place = {"listing_project": "elsewhere", "listing_location": "EU", "dataset_id": "q3"}
    octogen = Octogen()
    result = run(octogen, export={"grant_waits": (0.01,), **place})
    assert result.success, failure(result)
    assert octogen.asked.count("register_bigquery_subscriber") == 1
    assert google.calls.count("SubscribeListing") == 2  # denied, done
    assert {each.name for each in google.requests} == {listing}
    assert google.requests[-1].destination_dataset.dataset_reference.dataset_id == "q3"
    assert run(octogen, export={"grant_waits": (0.01,), **place}).success
    assert octogen.asked.count("register_bigquery_subscriber") == 1


def test_a_list_that_is_gone_is_a_clear_failure(golden: Golden, run: Run, lists: Lists) -> None:
    lists.status = "delete_pending"
    result = run(retry_policy=AT_ONCE)
    golden("errors", failure(result))
    assert not is_retried(result)
    lists.refusal = (404, "url_list_not_found")
    result = run(retry_policy=AT_ONCE)
    assert "cul_01" in failure(result)
    assert not is_retried(result)


def test_a_list_that_was_not_made_yet_is_a_clear_failure(golden: Golden, run: Run) -> None:
    @dg.asset(name="q3", metadata={"octogen/url_list": "q3"})
    def without_list() -> pl.DataFrame:
        return OWN

    golden("errors", failure(run(upstream=without_list)))


@pytest.mark.slow
def test_an_export_that_is_old_or_missing_is_a_warning(run: Run, lists: Lists) -> None:
    checks = run(export={"max_age": timedelta(days=1)}).get_asset_check_evaluations()
    (fresh,) = [each for each in checks if each.asset_key.path == ["q3_export"]]
    assert (fresh.passed, fresh.severity) == (False, dg.AssetCheckSeverity.WARN)
    lists.exported_at = None
    checks = run(export={"max_age": timedelta(days=1)}).get_asset_check_evaluations()
    (fresh,) = [each for each in checks if each.asset_key.path == ["q3_export"]]
    assert not fresh.passed
    assert "not been exported yet" in (fresh.description or "")


@pytest.mark.slow
def test_a_table_without_rows_has_neither_coverage_nor_pairs(run: Run, tmp_path: Path) -> None:
    names = ("sku", "url", "normalized_url", "rejected_code", "rejected_message")
    none = pl.DataFrame(schema={name: pl.Null() for name in names})
    assert run(upstream=given(none)).success
    assert snapshot(tmp_path, "q3_matches")["sku"].to_list() == [None] * len(PRODUCTS)


def test_names_and_arguments_are_those_of_other_assets() -> None:
    built = chain(key_prefix="shop", owners=["team:data"])
    names = ("q3_export", "q3_coverage", "q3_offers", "q3_matches")
    assert [each.key for each in built] == [dg.AssetKey(["shop", name]) for name in names]
    for each in built:
        spec = each.get_asset_spec()
        assert (each.op.pool, spec.group_name, spec.owners) == (None, "octogen", ["team:data"])
    export = built[0]
    default = [
        od.build_linked_snapshot_asset(export, view=each) for each in (None, "url_coverage_v1")
    ]
    assert [each.key.path[-1] for each in default] == [
        "octogen_linked_snapshot",
        "octogen_url_coverage_v1",
    ]


@dataclass
class Ticks:
    """Ticks of the sensor of two lists, of which the service has one."""

    instance: dg.DagsterInstance
    resources: dict[str, Any]
    minutes_later: float = 0.0

    def __post_init__(self) -> None:
        @dg.asset(metadata={"octogen/url_list": "q4"})
        def q4() -> None: ...

        self.built = chain(export={"grant_waits": ()}, retry_policy=None)
        self.other = chain(q4)
        self.defs = dg.Definitions(
            [q3, *self.built],
            jobs=[dg.define_asset_job("list_job", executor_def=dg.in_process_executor)],
            resources=self.resources,
        )

    def evaluate(self) -> dg.SensorResult | dg.SkipReason:
        sensor = od.build_url_list_sensor(
            [*self.built, *self.other],
            _clock=lambda: time.time() + self.minutes_later * 60,
        )
        named = {"octogen": self.resources["octogen"]}
        result = sensor(dg.build_sensor_context(instance=self.instance, resources=named))
        assert isinstance(result, dg.SensorResult | dg.SkipReason)
        return result

    def requested(self, *, executed: bool = True) -> list[list[str]]:
        """The assets of each run that a tick requests; the runs are executed."""
        result = self.evaluate()
        assert isinstance(result, dg.SensorResult)
        for request in (result.run_requests or ()) if executed else ():
            self.defs.resolve_job_def("list_job").execute_in_process(
                asset_selection=request.asset_selection,
                instance=self.instance,
                tags={**request.tags, "dagster/run_key": str(request.run_key)},
                raise_on_error=False,
            )
        return [
            [key.to_user_string() for key in request.asset_selection or ()]
            for request in result.run_requests or ()
        ]


@pytest.fixture
def ticks(instance: dg.DagsterInstance, resources: dict[str, Any]) -> Ticks:
    found = Ticks(instance, resources)
    assert dg.materialize([q3], instance=instance, resources=resources).success
    return found


CHAIN = ["q3_export", "q3_coverage", "q3_offers", "q3_matches"]


@pytest.mark.slow
def test_a_list_is_read_once_for_each_export(golden: Golden, ticks: Ticks, lists: Lists) -> None:
    assert ticks.requested() == [CHAIN]
    assert ticks.requested() == []
    lists.exported_at = "2026-11-29T06:40:00Z"
    assert ticks.requested() == [CHAIN]
    assert ticks.requested() == []
    golden("skips", ticks.evaluate().skip_reason)  # type: ignore[union-attr]


def test_a_list_that_was_not_exported_is_left_out(ticks: Ticks, lists: Lists) -> None:
    lists.exported_at = None
    assert ticks.requested() == []
    lists.exported_at, lists.status = "2026-11-29T06:40:00Z", "delete_pending"
    assert ticks.requested() == []


@pytest.mark.slow
def test_a_run_that_failed_is_requested_again_after_a_while(
    ticks: Ticks, bigquery: BigQueryServer
) -> None:
    exported, bigquery.results["products_current_v1"] = (
        bigquery.results["products_current_v1"],
        (PRODUCT_FIELDS, []),
    )
    assert ticks.requested() == [CHAIN]  # the coverage is read and the products are not
    assert ticks.requested() == []
    bigquery.results["products_current_v1"] = exported
    ticks.minutes_later = 11
    assert ticks.requested() == [CHAIN]
    assert ticks.requested() == []


def test_a_list_that_is_being_read_is_not_requested(
    ticks: Ticks, instance: dg.DagsterInstance
) -> None:
    job = ticks.defs.resolve_job_def("list_job")
    run = instance.create_run_for_job(job, asset_selection={ticks.built[2].key})
    assert ticks.requested() == []
    instance.report_run_failed(run)
    assert ticks.requested(executed=False) == [CHAIN]


def test_a_tick_without_an_answer_says_why(golden: Golden, ticks: Ticks, lists: Lists) -> None:
    lists.refusal = (401, "Invalid API key")
    with golden.raises(dg.Failure):
        ticks.evaluate()
