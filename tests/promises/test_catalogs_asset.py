"""The table of catalogs, from each source."""

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import (
    CatalogSource,
    GrantedCatalogs,
    NamedCatalogs,
    OctogenResource,
    ShopCatalogs,
    build_catalogs_asset,
    catalog_partitions,
)
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import KEY, RawServer, http
from tests.api.shops import catalog_of_shop, not_covered, shop, shops
from tests.results import metadata


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """The file of the table."""
    return tmp_path / "octogen_catalogs.parquet"


def warnings(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> list[str]:
    return [
        record.user_message
        for record in instance.all_logs(result.run_id)
        if record.level == 30  # logging.WARNING
    ]


def octogen_at(server: RawServer, catalogs: CatalogSource | None = None) -> OctogenResource:
    source = catalogs or GrantedCatalogs()
    return OctogenResource(api_key=KEY, base_url=server.base_url, attempts=1, catalogs=source)


def test_the_granted_catalogs_are_a_table_and_become_partitions(
    table: Path, resources: dict[str, Any], shops: Sandbox, instance: dg.DagsterInstance
) -> None:
    shops.grant("a/b, c", products=3)
    catalogs = build_catalogs_asset(partitions_def=catalog_partitions)
    for _ in range(2):
        result = dg.materialize([catalogs], resources=resources, instance=instance)
        assert result.success

    frame = pl.read_parquet(table)
    assert frame.columns == [
        *("catalog", "display_name", "host", "source_base_url"),
        *("product_count", "last_indexed_at", "computed_at"),
    ]
    assert frame["catalog"].to_list() == ["a/b, c", "northpeak", "strada"]
    assert frame["product_count"].to_list() == [3, 230, 120]
    assert not frame["last_indexed_at"].has_nulls()
    assert frame["computed_at"].is_null().all()
    keys = instance.get_dynamic_partitions("octogen_catalogs")
    assert sorted(keys) == ["a%2Fb%2C%20c", "northpeak", "strada"]
    figures = metadata(result, "octogen_catalogs")
    assert (figures["octogen/catalogs"], figures["octogen/products"]) == (3, 353)


def test_the_catalogs_of_shops_have_a_host_a_count_and_its_time(
    table: Path, resources: dict[str, Any]
) -> None:
    answers = {
        "acme.example": shop("acme.example", catalog_of_shop("acme"), catalog_of_shop("outlet", 7)),
        "zen.example": shop("zen.example", catalog_of_shop("zen", 5, computedAt="yesterday")),
    }
    with shops(answers) as server:
        resources["octogen"] = octogen_at(server, ShopCatalogs(hosts=sorted(answers)))
        result = dg.materialize([build_catalogs_asset()], resources=resources)
    frame = pl.read_parquet(table)
    assert frame["catalog"].to_list() == ["acme", "outlet", "zen"]
    assert frame["display_name"].to_list() == ["Acme", "Outlet", "Zen"]
    assert frame["host"].to_list() == ["acme.example", "acme.example", "zen.example"]
    assert frame["computed_at"].dt.to_string("%F %R").to_list() == ["2026-11-25 10:00"] * 2 + [None]
    assert frame["last_indexed_at"].is_null().all()
    figures = metadata(result, "octogen_catalogs")
    assert (figures["octogen/catalogs"], figures["octogen/products"]) == (3, 15)


@pytest.mark.parametrize("bad", [not_covered(), http(503), http(body="<h1>down</h1>")])
def test_a_shop_that_fails_is_a_warning_and_the_others_are_in_the_table(
    table: Path, resources: dict[str, Any], instance: dg.DagsterInstance, bad: list[bytes]
) -> None:
    good = shop("zen.example", catalog_of_shop("zen"))
    with shops({"acme.example": bad, "zen.example": good}) as server:
        source = ShopCatalogs(hosts=["acme.example", "zen.example"])
        resources["octogen"] = octogen_at(server, source)
        result = dg.materialize([build_catalogs_asset()], resources=resources, instance=instance)
    assert pl.read_parquet(table)["catalog"].to_list() == ["zen"]
    (warning,) = warnings(instance, result)
    assert warning.startswith("Shop 'acme.example' ")
    assert warning.endswith("The catalogs of this shop are left out.")


def test_of_named_catalogs_only_the_key_is_known(table: Path, resources: dict[str, Any]) -> None:
    resources["octogen"] = OctogenResource(api_key=KEY, catalogs=NamedCatalogs(keys=["b", "a"]))
    result = dg.materialize([build_catalogs_asset()], resources=resources)
    frame = pl.read_parquet(table)
    assert frame["catalog"].to_list() == ["a", "b"]
    assert frame.drop("catalog").select(pl.all().is_null().all()).row(0) == (True,) * 6
    figures = metadata(result, "octogen_catalogs")
    assert figures["octogen/catalogs"] == 2
    assert "octogen/products" not in figures


def test_a_catalog_that_cannot_be_a_partition_is_in_the_table_only(
    table: Path, resources: dict[str, Any], shops: Sandbox, instance: dg.DagsterInstance
) -> None:
    shops.grant("x" * 300, products=1)
    catalogs = build_catalogs_asset(partitions_def=catalog_partitions)
    result = dg.materialize([catalogs], resources=resources, instance=instance)
    assert len(pl.read_parquet(table)) == 3
    keys = instance.get_dynamic_partitions("octogen_catalogs")
    assert sorted(keys) == ["northpeak", "strada"]
    (warning,) = warnings(instance, result)
    assert warning.startswith(f"Skipped catalog {'x' * 60!r}. Key 'xxx")


def test_a_catalog_that_is_listed_twice_and_a_time_that_cannot_be_are_warnings(
    table: Path, resources: dict[str, Any], instance: dg.DagsterInstance
) -> None:
    acme = {"catalog": "acme", "displayName": "Acme", "productCount": 1}
    never = {**acme, "catalog": "never", "lastIndexedAt": "0001-01-01T00:00:00+05:00"}
    with RawServer(lambda _: http(body=[acme, never, acme])) as server:
        resources["octogen"] = octogen_at(server)
        result = dg.materialize([build_catalogs_asset()], resources=resources, instance=instance)
    assert pl.read_parquet(table)["catalog"].to_list() == ["acme", "never"]
    first, second = warnings(instance, result)
    assert first.startswith("Catalog 'never': its lastIndexedAt '0001-01-01T00:00:00+05:00' is not")
    assert second == "Catalog 'acme' is listed more than once. It is read once."
