"""What a run's log says while the service does not answer, and which waits are not worth it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

import octogen_dagster as od
from octogen_dagster.api.catalog_states import CatalogList
from octogen_dagster.errors import OctogenBudgetError, OctogenServerError, OctogenTimeoutError
from octogen_dagster.schemas import PRODUCT_SCHEMA
from tests.api.servers import RawServer, Received, http, page, unlisted
from tests.results import octogen_at, scan, stored, warnings

ACME = od.ProductSearch(catalogs=["acme"])


@pytest.fixture
def octogen() -> od.OctogenResource:
    """A resource whose address is wrong: nothing listens at the port."""
    return od.OctogenResource(
        api_key="octo_x",
        base_url="http://127.0.0.1:1/v1",
        attempts=2,
        catalog_source=od.GrantedCatalogs(),
    )


@dg.asset
def search(octogen: od.OctogenResource) -> od.ProductScan:
    return octogen.scan(ACME)


@dg.asset
def listed() -> pl.DataFrame:
    product = {"uuid": "a", "product_url": "https://acme.example/a"}
    return pl.DataFrame([product], schema=PRODUCT_SCHEMA)


@pytest.mark.parametrize(
    "asset",
    [
        od.build_catalogs_asset(),
        od.build_products_asset("products", retry_policy=dg.RetryPolicy(max_retries=0)),
        search,
        od.build_product_details_asset(listed),
    ],
    ids=lambda asset: asset.key.to_user_string(),
)
def test_a_wrong_address_is_told_once_before_the_run_fails(
    asset: dg.AssetsDefinition,
    octogen: od.OctogenResource,
    instance: dg.DagsterInstance,
    tmp_path: Path,
) -> None:
    resources = stored(tmp_path, octogen)
    dg.materialize([listed], instance=instance, resources=resources)
    run = dg.materialize(
        [asset, listed],
        selection=[asset],
        instance=instance,
        resources=resources,
        raise_on_error=False,
    )
    assert not run.success
    lines = warnings(instance, run)
    [line] = [line for line in lines if "Retrying in" in line]
    assert f"{octogen.base_url} did not return a complete response (" in line


def error_of(work: Callable[[], object]) -> BaseException | None:
    """Return what some work raises, which must end within a minute."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    return errors[0] if errors else None


def test_a_spent_budget_is_told_although_another_catalog_waits_for_the_service() -> None:
    waits = threading.Event()

    def respond(request: Received) -> list[bytes]:
        catalog, number = request.json["catalog"], int(request.json.get("cursor", 1))
        if catalog == "busy" and number == 2:
            waits.set()
            return http(503, retry_after="110")
        if number == 2:
            waits.wait(300)
        return http(200, page([f"{catalog}-{number}"], f"{number + 1}"))

    with unlisted(respond) as server:
        search = od.ProductSearch(catalogs=["acme", "busy"])
        frame = scan(server, search, concurrency=2, budget_usd=0.06)
        error = error_of(frame.collect)
    assert isinstance(error, OctogenBudgetError)


class Endless(od.CatalogSource):
    """A source of one's own that never lists anything."""

    async def fetch(self, client: od.OctogenClient) -> CatalogList:
        await asyncio.Event().wait()
        raise AssertionError


def test_a_source_of_ones_own_has_the_time_of_one_request() -> None:
    octogen = od.OctogenResource(api_key="octo_x", deadline=1.0, catalog_source=Endless())
    error = error_of(octogen.list_catalogs)
    assert isinstance(error, OctogenTimeoutError)
    assert "Endless did not list the catalogs in time" in str(error)


def test_a_wait_for_the_rate_limit_that_is_longer_than_the_deadline_is_not_begun() -> None:
    def respond(_request: Received) -> list[bytes]:
        return http(500, x_ratelimit_limit="60", x_ratelimit_remaining="0")

    hosts = [f"shop{number}.example" for number in range(100)]
    with RawServer(respond) as server:
        octogen = octogen_at(
            server, attempts=1, deadline=10.0, catalog_source=od.ShopCatalogs(hosts=hosts)
        )
        error = error_of(octogen.list_catalogs)
    assert isinstance(error, OctogenServerError)  # the first of their errors
    assert "rate limit of 60 requests per minute" in str(error)
    assert len(server.received) < len(hosts)
