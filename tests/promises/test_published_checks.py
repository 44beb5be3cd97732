"""The checks of products of the current generation of the service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg

from octogen_dagster import (
    OctogenResource,
    ParquetSnapshotIOManager,
    ShopCatalogs,
    build_catalog_sensor,
    build_products_asset,
    build_snapshot_checks,
    build_snapshot_schedule,
    catalog_partitions,
)
from tests.promises.checked import ALL, evaluations, failed
from tests.published_service import PublishedService
from tests.results import metadata

PRODUCTS = build_products_asset("products", partitions_def=catalog_partitions)


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
    octogen = OctogenResource(
        api_key="octo_live_test",
        base_url=service.base_url,
        catalogs=ShopCatalogs(hosts=["acme.com"]),
    )
    return dg.Definitions(
        [PRODUCTS],
        schedules=[build_snapshot_schedule(PRODUCTS, "0 6 * * *")],
        sensors=[build_catalog_sensor(PRODUCTS)],
        asset_checks=build_snapshot_checks(PRODUCTS, **settings),
        resources={
            "octogen": octogen,
            "io_manager": ParquetSnapshotIOManager(base_dir=str(folder)),
        },
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
        "products, partition 'acme' has bad rows: a price is negative in 1 of 50 rows (2 %), 0.1 % "
        "are allowed."
    )
    assert str(found["nulls"].description).startswith(
        "products, partition 'acme' has bad rows: title is null in 50 of 50 rows (100 %), 20 % are "
        "allowed."
    )
    assert metadata(result, "products")["octogen/unknown_field_names"] == {"items.mood": 50}


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
