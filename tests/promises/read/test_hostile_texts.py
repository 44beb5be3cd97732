"""A terminal and a log obey nothing that the service or a shop sends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner

import octogen_dagster as od
from octogen_dagster.cli.main import main
from octogen_dagster.schemas import PRODUCT_SCHEMA
from tests.api.servers import RawServer, catalog_of_shop, http, page, shop, unlisted
from tests.projects import Project
from tests.results import failure, octogen_at, stored

HOSTILE = "red\x1b]0;title\x07\x1b[2J\x9b\u202e"
SHOWN = r"red\x1b]0;title\x07\x1b[2J\x9b\u202e"


def assert_escaped(text: str) -> None:
    assert SHOWN in text
    assert not any(character in text for character in "\x1b\x07\x9b\u202e")


def test_the_key_of_a_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    covered = shop("acme.example", catalog_of_shop(HOSTILE, 250))
    with unlisted(shops={"acme.example": covered}) as server:
        monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", server.api_key)
        monkeypatch.setenv("OCTOGEN_BASE_URL", server.base_url)
        result = CliRunner().invoke(main, ["estimate", "--host", "acme.example"])
    assert_escaped(result.output)


def test_the_keys_that_are_granted(project: Project) -> None:
    with RawServer(lambda _: http(200, [{"catalog": HOSTILE, "productCount": 1}])) as server:
        asset = od.build_products_asset("products", od.ProductSearch(catalogs=["acme"]))
        result = project.run([asset], octogen_at(server), raise_on_error=False)
        assert_escaped(failure(result))


def test_the_host_of_a_shop(project: Project) -> None:
    covered = shop(HOSTILE, catalog_of_shop("acme"))
    with unlisted(shops={"acme.example": covered}) as server:
        source = od.ShopCatalogs(hosts=["acme.example"], catalogs=["zen"])
        octogen = octogen_at(server, catalog_source=source)
        asset = od.build_products_asset("products", retry_policy=None)
        assert_escaped(project.failure([asset], octogen))


def test_how_a_search_is_understood(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    facets = [{"name": "color", "values": [HOSTILE], "source": "generated"}]
    content = page(["a"]) | {"effectiveQuery": {"text": "red", "facets": facets}}
    with unlisted(lambda _: http(200, content)) as server:
        search = od.ProductSearch(catalogs=["acme"], q="red", understand=True)
        asset = od.build_products_asset("products", search)
        assert project.run([asset], octogen_at(server)).success
    assert_escaped(capfd.readouterr().err)


def test_the_address_of_a_product(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = [{"uuid": "a", "product_url": f"https://acme.example/{HOSTILE}"}]

    @dg.asset
    def products() -> Any:
        return pl.DataFrame(rows, schema=PRODUCT_SCHEMA)

    with RawServer(lambda _: http(500)) as server:
        details = od.build_product_details_asset(products, name="details", retry_policy=None)
        resources = stored(tmp_path, octogen_at(server, attempts=1))
        result = dg.materialize([products, details], resources=resources, raise_on_error=False)
    assert_escaped(failure(result))
