"""One host, several catalogs: a reader is told which there are, and chooses among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner, Result

import octogen_dagster as od
from octogen_dagster.errors import OctogenForbiddenError
from tests.api.servers import catalog_of_shop, http, shop, unlisted
from tests.published_service import PublishedService
from tests.results import failure, materialized, octogen_at, warnings

KEY = "octo_live_test"
HOSTS = ["lagence.example", "plain.example"]
OWN = [f"own {number}" for number in range(150)]
AGGREGATE = [f"of many {number}" for number in range(1_234)]
PLAIN = ["plain 0", "plain 1"]


@pytest.fixture
def service() -> Iterator[PublishedService]:
    """A host that two catalogs claim, one of which is an aggregate, and a host with one."""
    catalogs = {"lagence": OWN, "myshopify": AGGREGATE, "plain": PLAIN}
    hosts = {"lagence.example": ["lagence", "myshopify"], "plain.example": ["plain"]}
    with PublishedService(catalogs, hosts=hosts).running() as running:
        yield running


@pytest.fixture
def read(
    service: PublishedService, instance: dg.DagsterInstance, tmp_path: Path
) -> Callable[..., dg.ExecuteInProcessResult]:
    """A function that reads all products of a source into a snapshot."""

    def materialize(source: od.CatalogSource, **settings: Any) -> dg.ExecuteInProcessResult:
        octogen = octogen_at(service, catalog_source=source, **settings)
        return materialized(
            [od.build_products_asset("products", retry_policy=None)],
            tmp_path,
            octogen,
            instance=instance,
            raise_on_error=False,
        )

    return materialize


def catalogs(folder: Path) -> set[str]:
    """The catalogs in the snapshot."""
    return set(pl.read_parquet(folder / "products.parquet")["catalog_key"])


def test_the_first_read_warns_with_names_counts_and_dollars(
    read: Callable[..., dg.ExecuteInProcessResult], instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    source = od.ShopCatalogs(hosts=HOSTS)
    first, second = read(source), read(source)
    assert catalogs(tmp_path) == {"lagence", "myshopify", "plain"}
    (warning,) = warnings(instance, first)
    assert warning.startswith("Shop 'lagence.example' has 2 catalogs")
    assert "'lagence' with 150 products, $0.03; 'myshopify' with 1,234 products, $0.18." in warning
    assert warning.endswith("ShopCatalogs(hosts=[...], catalogs=['lagence']).")
    assert warnings(instance, second) == []


def test_those_that_are_chosen_are_read_without_a_warning(
    read: Callable[..., dg.ExecuteInProcessResult],
    instance: dg.DagsterInstance,
    service: PublishedService,
    tmp_path: Path,
) -> None:
    result = read(od.ShopCatalogs(hosts=HOSTS, catalogs=["lagence", " plain "]))
    assert result.success
    assert catalogs(tmp_path) == {"lagence", "plain"}
    assert warnings(instance, result) == []
    assert all(body["catalogs"] != ["myshopify"] for body in service.searches)


def test_one_that_no_host_has_fails_and_lists_what_there_is(
    read: Callable[..., dg.ExecuteInProcessResult], service: PublishedService
) -> None:
    text = failure(read(od.ShopCatalogs(hosts=HOSTS, catalogs=["lagence", "lagense"])))
    assert "Catalog 'lagense' does not belong to any of the hosts" in text
    assert (
        "'lagence' (lagence.example), 'myshopify' (lagence.example), 'plain' (plain.example)."
    ) in text
    assert "Correct `catalogs` in ShopCatalogs" in text
    assert service.searches == []


def test_one_whose_shop_cannot_be_read_now_fails_with_that() -> None:
    answers = {
        "lagence.example": shop("lagence.example", catalog_of_shop("lagence")),
        "plain.example": http(403, {"detail": "api_key_forbidden"}),
    }
    with unlisted(shops=answers) as server:
        source = od.ShopCatalogs(hosts=HOSTS, catalogs=["lagence", "plain"])
        frame = od.scan_products(
            od.ProductSearch(), api_key=KEY, base_url=server.base_url, catalog_source=source
        )
        with pytest.raises(OctogenForbiddenError, match=r"^Shop 'plain\.example'"):
            frame.collect()


def test_the_sensor_requests_those_that_are_chosen(
    service: PublishedService, instance: dg.DagsterInstance
) -> None:
    source = od.ShopCatalogs(hosts=HOSTS, catalogs=["lagence"])
    octogen = octogen_at(service, catalog_source=source)
    sensor = od.build_catalog_sensor(
        od.build_products_asset("products", partitions_def=od.catalog_partitions)
    )
    context = dg.build_sensor_context(instance=instance, resources={"octogen": octogen})
    result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    assert [run.partition_key for run in result.run_requests or ()] == ["lagence"]


@pytest.fixture
def estimate(service: PublishedService, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A function that runs `octogen-dagster estimate`."""
    monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", KEY)
    monkeypatch.setenv("OCTOGEN_BASE_URL", service.base_url)
    (script,) = entry_points(group="console_scripts", name="octogen-dagster")
    return lambda *arguments: CliRunner().invoke(script.load(), ["estimate", *arguments])


def test_an_estimate_lists_the_catalogs_of_a_host_apart(
    estimate: Callable[..., Result], service: PublishedService
) -> None:
    result = estimate("--host", "lagence.example", "--host", "plain.example")
    assert (result.exit_code, result.stderr) == (0, "")
    *table, advice = result.stdout.splitlines()
    rows = [line.split()[:3] for line in table]
    for row in (["lagence", "150", "2"], ["myshopify", "1,234", "13"], ["plain", "2", "1"]):
        assert row in rows
    assert advice.startswith("lagence.example has 2 catalogs")
    assert advice.endswith("ShopCatalogs(hosts=['lagence.example'], catalogs=['lagence']).")
    assert service.searches == []
