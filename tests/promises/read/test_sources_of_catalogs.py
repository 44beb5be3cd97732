"""Where catalogs come from: the list of the key, hosts of shops, keys, or an own source."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Callable, Iterable

import dagster as dg
import polars as pl
import pytest

import octogen_dagster as od
from octogen_dagster.api.catalog_states import CatalogList, CatalogState
from octogen_dagster.errors import OctogenNotFoundError, OctogenServerError
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import (
    RawServer,
    Received,
    catalog_of_shop,
    hanging,
    http,
    not_covered,
    shop,
    unlisted,
)
from tests.projects import Project
from tests.results import metadata, octogen_at, warnings

BOTH = od.ShopCatalogs(hosts=["acme.example", "zen.example"])
ACME = shop("acme.example", catalog_of_shop("acme"))
ZEN = shop("zen.example", catalog_of_shop("zen"))


class OfBoth(od.CatalogSource):
    """A source of one's own, which asks the service."""

    async def fetch(self, client: od.OctogenClient) -> CatalogList:
        coverages = [await client.get_domain(host) for host in BOTH.hosts]
        return CatalogList(
            [CatalogState(each.catalog) for shop in coverages for each in shop.catalogs]
        )


def fetched(server: RawServer, source: od.CatalogSource, deadline: float = 300) -> CatalogList:
    """The catalogs that a source lists, with one attempt for each request."""
    octogen = octogen_at(server, attempts=1, deadline=deadline)

    async def fetch() -> CatalogList:
        async with octogen.client() as client:
            return await source.fetch(client)

    return asyncio.run(fetch())


def keys(listed: CatalogList) -> list[str]:
    return [state.catalog for state in listed.catalogs]


def hang(server: Callable[[], RawServer]) -> Callable[[Received], Iterable[bytes]]:
    """An answer that never comes."""
    return lambda _: hanging(server)


SOURCES = {
    "a list": od.GrantedCatalogs(),
    "shops": BOTH,
    "keys": od.NamedCatalogs(keys=["acme", "zen"]),
}


@pytest.mark.parametrize("source", [*SOURCES.values(), OfBoth()], ids=[*SOURCES, "an own one"])
def test_a_resource_lists_the_catalogs_of_its_source(source: od.CatalogSource) -> None:
    def respond(request: Received) -> list[bytes]:
        match request.target.removeprefix("/v1"):
            case "/catalogs":
                return http(body=[{"catalog": key, "productCount": 3} for key in ("acme", "zen")])
            case "/domains/acme.example":
                return ACME
            case "/domains/zen.example":
                return ZEN
        return http(404, {"detail": "Not Found"})

    with RawServer(respond) as server:
        octogen = octogen_at(server, catalog_source=source)
        listed = octogen.list_catalogs()
    assert [each.catalog for each in listed] == ["acme", "zen"]
    assert {each.product_count for each in listed} <= {3, None}


@pytest.mark.parametrize(
    ("route", "sent"), [("domains", ["domains"]), ("stores", ["domains", "stores"])]
)
def test_shops_are_read_at_the_operation_that_the_service_has(route: str, sent: list[str]) -> None:
    with Sandbox(catalogs={"northpeak": 5}, shop_routes=[route]) as sandbox:
        host, other = *sandbox.hosts, "elsewhere.example"
        octogen = od.OctogenResource(
            api_key=sandbox.api_key,
            base_url=sandbox.base_url,
            catalog_source=od.ShopCatalogs(hosts=[host]),
        )
        assert [each.catalog for each in octogen.list_catalogs()] == ["northpeak"]
        assert [each.catalog for each in octogen.list_catalogs()] == ["northpeak"]
        asked = octogen.model_copy(update={"catalog_source": od.ShopCatalogs(hosts=[other])})
        with pytest.raises(OctogenNotFoundError, match="domain_not_covered"):
            asked.list_catalogs()
        paths = [request.path for request in sandbox.requests]
    ours = [f"/{each}/{host}" for each in (*sent, route)]
    assert paths == [*ours, f"/{route}/{other}"]


LISTED: dict[str, Callable[[], dg.AssetsDefinition]] = {
    "a table of catalogs": od.build_catalogs_asset,
    "catalogs": lambda: od.build_products_asset("products", partitions_def=od.catalog_partitions),
    "days": lambda: od.build_products_asset(
        "products", partitions_def=od.catalog_days("2026-11-01")
    ),
}
UNLISTED: dict[str, Callable[[], dg.AssetsDefinition]] = {
    "no partitions": lambda: od.build_products_asset("products"),
    "static ones": lambda: od.build_products_asset(
        "products", partitions_def=dg.StaticPartitionsDefinition(["acme"])
    ),
}


def load(asset: dg.AssetsDefinition, octogen: od.OctogenResource) -> None:
    dg.Definitions.validate_loadable(
        dg.Definitions(
            [asset],
            resources={
                "octogen": octogen,
                "io_manager": od.ParquetSnapshotIOManager(base_dir="snapshots"),
            },
        )
    )


@pytest.mark.parametrize("build", LISTED.values(), ids=LISTED)
@pytest.mark.parametrize("changed", [False, True], ids=["as built", "with attributes"])
def test_catalog_partitions_do_not_load_without_a_catalog_source(
    build: Callable[[], dg.AssetsDefinition], *, changed: bool
) -> None:
    asset = build().with_attributes(group_names_by_key={}) if changed else build()
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=r"ShopCatalogs\(hosts=\[\.\.\.\]"):
        load(asset, od.OctogenResource())
    for source in SOURCES.values():
        load(asset, od.OctogenResource(catalog_source=source))


@pytest.mark.parametrize("build", UNLISTED.values(), ids=UNLISTED)
def test_a_resource_without_a_catalog_source_loads_with_no_list_of_catalogs(
    build: Callable[[], dg.AssetsDefinition],
) -> None:
    load(build(), od.OctogenResource())


class TestShopCatalogs:
    def test_the_hosts_are_requested_at_the_same_time(self) -> None:
        together = threading.Barrier(2)

        def answer(_: Received) -> Iterable[bytes]:
            together.wait(30)
            return ACME

        with unlisted(shops={"acme.example": answer, "zen.example": answer}) as server:
            assert set(keys(fetched(server, BOTH))) == {"acme"}

    def test_a_shop_that_does_not_answer_in_time_does_not_stop_the_others(self) -> None:
        with unlisted(shops={"acme.example": hang(lambda: server), "zen.example": ZEN}) as server:
            listed = fetched(server, BOTH, deadline=0.5)
        assert keys(listed) == ["zen"]
        assert "did not respond in time" in listed.warnings[0]
        assert listed.failure

    def test_if_all_fail_the_error_names_them_and_is_one_that_may_pass(self) -> None:
        with (
            unlisted(shops={"acme.example": not_covered(), "zen.example": http(500)}) as server,
            pytest.raises(
                OctogenServerError,
                match=r"^None of the 2 shops could be read\. Shop 'acme\.example' .* Shop 'zen\.ex",
            ) as caught,
        ):
            fetched(server, BOTH)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


# The table of catalogs, from each source.


Tabled = tuple[dg.ExecuteInProcessResult, pl.DataFrame]
TABLE = "octogen_catalogs"


@pytest.fixture
def tabled(project: Project) -> Callable[..., Tabled]:
    """A function that makes the table of the catalogs of a server's source."""

    def make(server: RawServer, source: od.CatalogSource) -> Tabled:
        octogen = octogen_at(server, attempts=1, catalog_source=source)
        result = project.run([od.build_catalogs_asset()], octogen)
        return result, project.read(TABLE)

    return make


@pytest.mark.seed
def test_the_granted_catalogs_are_a_table_and_become_partitions(
    project: Project, shops: Sandbox
) -> None:
    shops.grant("a/b, c", products=3)
    catalogs = od.build_catalogs_asset(partitions_def=od.catalog_partitions)
    for _ in range(2):
        result = project.run([catalogs])

    frame = project.read(TABLE)
    assert frame.columns == [
        *("catalog", "display_name", "host", "source_base_url"),
        *("product_count", "last_indexed_at", "computed_at"),
    ]
    assert frame["catalog"].to_list() == ["a/b, c", "northpeak", "strada"]
    assert frame["product_count"].to_list() == [3, 230, 120]
    assert not frame["last_indexed_at"].has_nulls()
    assert frame["computed_at"].is_null().all()
    keys = project.instance.get_dynamic_partitions("octogen_catalogs")
    assert sorted(keys) == ["a%2Fb%2C%20c", "northpeak", "strada"]
    figures = metadata(result, TABLE)
    assert (figures["octogen/catalogs"], figures["octogen/products"]) == (3, 353)


def test_the_catalogs_of_shops_have_a_host_a_count_and_its_time(
    tabled: Callable[..., Tabled],
) -> None:
    answers = {
        "acme.example": shop("acme.example", catalog_of_shop("acme"), catalog_of_shop("outlet", 7)),
        "zen.example": shop("zen.example", catalog_of_shop("zen", 5, computedAt="yesterday")),
    }
    with unlisted(shops=answers) as server:
        result, frame = tabled(server, BOTH)
    assert frame["catalog"].to_list() == ["acme", "outlet", "zen"]
    assert frame["display_name"].to_list() == ["Acme", "Outlet", "Zen"]
    assert frame["host"].to_list() == ["acme.example", "acme.example", "zen.example"]
    assert frame["computed_at"].dt.to_string("%F %R").to_list() == ["2026-11-25 10:00"] * 2 + [None]
    assert frame["last_indexed_at"].is_null().all()
    figures = metadata(result, TABLE)
    assert (figures["octogen/catalogs"], figures["octogen/products"]) == (3, 15)


@pytest.mark.parametrize(
    "bad",
    [
        *(not_covered(), http(500), http(503), http(404, {"detail": "Not Found"})),
        *(http(body="<h1>down</h1>"), http(body=[1])),
    ],
)
def test_a_shop_that_is_left_out_fails_a_check_and_the_others_are_in_the_table(
    tabled: Callable[..., Tabled], instance: dg.DagsterInstance, bad: list[bytes]
) -> None:
    with unlisted(shops={"acme.example": bad, "zen.example": ZEN}) as server:
        result, frame = tabled(server, BOTH)
    assert frame["catalog"].to_list() == ["zen"]
    (warning,) = warnings(instance, result)
    assert warning.startswith("Shop 'acme.example' ")
    assert warning.endswith(" left out.")
    left_out = metadata(result, TABLE)["octogen/shops_left_out"]
    assert [*left_out] == ["acme.example"]
    assert warning.startswith(left_out["acme.example"])
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == ("all_shops_listed", False)
    assert check.severity is dg.AssetCheckSeverity.ERROR
    assert "1 shop" in (description := check.description or "")
    assert "'acme.example'" in description


def test_without_a_shop_that_is_left_out_the_check_passes(tabled: Callable[..., Tabled]) -> None:
    with unlisted(shops={"zen.example": ZEN}) as server:
        result, _ = tabled(server, od.ShopCatalogs(hosts=["zen.example"]))
    assert "octogen/shops_left_out" not in metadata(result, TABLE)
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == ("all_shops_listed", True)


def test_of_named_catalogs_only_the_key_is_known(tabled: Callable[..., Tabled]) -> None:
    with unlisted() as server:
        result, frame = tabled(server, od.NamedCatalogs(keys=["b", "a"]))
    assert server.received == []
    assert frame["catalog"].to_list() == ["a", "b"]
    assert frame.drop("catalog").select(pl.all().is_null().all()).row(0) == (True,) * 6
    figures = metadata(result, TABLE)
    assert figures["octogen/catalogs"] == 2
    assert "octogen/products" not in figures


def test_a_catalog_that_is_listed_twice_and_a_time_that_cannot_be_are_warnings(
    tabled: Callable[..., Tabled], instance: dg.DagsterInstance
) -> None:
    acme = {"catalog": "acme", "displayName": "Acme", "productCount": 1}
    never = {**acme, "catalog": "never", "lastIndexedAt": "0001-01-01T00:00:00+05:00"}
    with RawServer(lambda _: http(body=[acme, never, acme])) as server:
        result, frame = tabled(server, od.GrantedCatalogs())
    assert frame["catalog"].to_list() == ["acme", "never"]
    first, second = warnings(instance, result)
    assert first.startswith("Catalog 'never' has an invalid lastIndexedAt: '0001-01-01")
    assert second.startswith("Catalog 'acme' is listed more than once")
