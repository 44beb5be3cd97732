"""The checks of products of the current generation of the service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

import octogen_dagster as od
from tests.projects import Project
from tests.promises.runs.checked import ALL, evaluations, failed
from tests.published_service import PublishedService, url_of
from tests.results import metadata, octogen_at, stored

PRODUCTS = od.build_products_asset("products", partitions_def=od.catalog_partitions)


class PricedService(PublishedService):
    """A service whose products have a price, a currency and a field that nobody knew."""

    def search(self, body: dict[str, Any]) -> tuple[int, Any]:
        status, page = super().search(body)
        for number, item in enumerate(page.get("items", ())):
            won = number % 2
            price = -5.0 if number == 7 else 160_000.0 if won else 100.0
            item |= {"currentPrice": price, "currency": "KRW" if won else "EUR", "mood": "calm"}
        return status, page


def definitions(folder: Path, service: PublishedService, **settings: Any) -> dg.Definitions:
    """A catalog with its checks, its sensor and its schedule."""
    octogen = octogen_at(service, catalog_source=od.ShopCatalogs(hosts=["acme.com"]))
    return dg.Definitions(
        [PRODUCTS],
        schedules=[od.build_snapshot_schedule(PRODUCTS, "0 6 * * *")],
        sensors=[od.build_catalog_sensor(PRODUCTS)],
        asset_checks=od.build_snapshot_checks(PRODUCTS, **settings),
        resources=stored(folder, octogen),
    )


def test_prices_of_two_currencies_and_a_new_field(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    uuids = [f"p{number}" for number in range(50)]
    instance.add_dynamic_partitions("octogen_catalogs", ["acme"])
    service = PricedService({"acme": uuids}, hosts={"acme.com": ["acme"]})
    with service.running():
        job = definitions(tmp_path, service).resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=instance, partition_key="acme")
    found = evaluations(result)
    assert found.keys() == ALL
    assert failed(result) == {"prices", "nulls"}
    assert str(found["prices"].description).startswith(
        "products, partition 'acme' has bad rows: a price is negative in 1 of 50 rows (2 %, limit "
        "0.1 %). "
    )
    assert str(found["nulls"].description).startswith(
        "products, partition 'acme' has bad rows: title is null in 50 of 50 rows (100 %, "
        "limit 20 %). "
    )
    assert metadata(result, "products")["octogen/unknown_field_names"] == {"items.mood": 50}


@pytest.mark.long
def test_a_column_that_loses_all_of_its_values(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    uuids = [f"p{number}" for number in range(50)]
    instance.add_dynamic_partitions("octogen_catalogs", ["acme"])
    service = PublishedService({"acme": uuids}, hosts={"acme.com": ["acme"]})
    item: dict[str, Any] = {"title": "Shoe", "currentPrice": 9.0}
    search = service.search

    def with_values(body: dict[str, Any]) -> tuple[int, Any]:
        status, page = search(body)
        for each in page.get("items", ()):
            each.update(item)
        return status, page

    def nulls(**limits: Any) -> dg.AssetCheckEvaluation:
        job = definitions(tmp_path, service, **limits).resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=instance, partition_key="acme")
        return evaluations(result)["nulls"]

    service.search = with_values  # type: ignore[method-assign]
    with service.running():
        item["currency"] = None
        assert nulls().passed, "nothing is known of earlier snapshots"
        assert nulls().passed, "it never had a value"
        for _ in range(3):
            item["currency"] = "EUR"
            assert nulls().passed
        item["currency"] = None
        found = nulls()
        assert not found.passed
        assert found.metadata["octogen/lost_columns"].value == "currency"
        assert str(found.description).startswith("products, partition 'acme' has 50 rows. ")
        assert "All values are null in currency" in str(found.description)
        assert nulls(max_null_percent={"currency": 100}).passed


def test_runs_of_the_sensor_and_of_the_schedule_have_the_checks(tmp_path: Path) -> None:
    service = PublishedService({}, base_url="http://127.0.0.1:1/v1")
    repository = definitions(tmp_path, service).get_repository_def()
    names = [
        *(str(schedule.job_name) for schedule in repository.schedule_defs),
        *(str(sensor.job_name) for sensor in repository.sensor_defs if sensor.has_jobs),
    ]
    assert len(names) == 2
    for name in names:
        keys = repository.get_job(name).asset_layer.asset_graph.asset_check_keys
        assert {key.name for key in keys} == ALL


# A details snapshot of a catalog of the current generation that lost products meanwhile.


# Every third product is a variant of the one before.
UUIDS = [
    f"p{number}" if number % 3 else f"p{number - 1}?variant={number}" for number in range(1, 301)
]
REMOVED = [uuid for uuid in UUIDS if "?" in uuid]


class ForgetfulService(PublishedService):
    """Does not know the fields of a lookup that ask for the index only, and ignores them."""

    def lookup(self, body: dict[str, Any]) -> tuple[int, Any]:
        return super().lookup({"url": body["url"], "matchMode": "strict"})


@pytest.fixture(params=[PublishedService, ForgetfulService])
def service(request: pytest.FixtureRequest) -> Iterator[PublishedService]:
    """A service with one catalog of 300 products."""
    with request.param({"acme": list(UUIDS)}).running() as running:
        yield running


@pytest.mark.slow
def test_a_third_of_the_products_was_removed(project: Project, service: PublishedService) -> None:
    products = od.build_products_asset("products", od.ProductSearch(catalogs=["acme"]))
    details = od.build_product_details_asset(products, max_failed_percent=0)
    octogen = octogen_at(service)
    project.run([products], octogen)
    service.catalogs["acme"] = [uuid for uuid in UUIDS if uuid not in REMOVED]
    service.shops_only = {url_of("acme", uuid) for uuid in REMOVED}

    result = project.run([products, details], octogen, selection=[details])
    rows = project.read("products_details")
    assert sorted(rows["uuid"]) == sorted(UUIDS)
    assert Counter(rows["status"]) == {"found": 200, "gone": 100}
    assert rows["error"].null_count() == 300
    gone = rows.filter(pl.col("status") == "gone")
    assert sorted(gone["uuid"]) == sorted(REMOVED)
    assert gone["title"].null_count() == 100
    assert set(rows.filter(pl.col("status") == "found")["source"]) == {"indexed"}
    assert set(gone["source"]) == {"on_demand" if type(service) is ForgetfulService else None}
    shown = metadata(result, "products_details")
    assert (shown["octogen/found"], shown["octogen/gone"]) == (200, 100)
    assert (shown.get("octogen/mismatched"), shown["octogen/failed"]) == (None, 0)
    assert len(service.lookups) == 300
