"""A search is the same however it is written, and its mistakes are named before a request.

It is written in Python, as the run configuration of an asset, in YAML, and as the arguments of the
client.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from octogen_dagster import OctogenResource, ProductSearch, build_products_asset, scan_products
from octogen_dagster.api.search import AgeGroup, ColorFamily, FacetName, Gender
from octogen_dagster.components import OctogenComponent
from octogen_dagster.errors import OctogenError
from tests.api.servers import KEY, RawServer, Received, http, page, unlisted
from tests.promises.yaml.yaml_projects import load
from tests.results import stored

FILTERS: dict[str, Any] = {
    "q": "boots",
    "facets": [{"name": "gender", "values": ["male"]}],
    "price_min": 3.0,
    "price_max": 400.0,
    "understand": True,
    "exclude_facets": [{"name": "pattern", "values": ["floral"]}],
    "omit_generated_facets": ["color"],
    "fallback_category": ["apparel & accessories"],
    "brand_quality_min": 2.0,
    "brand_quality_max": 5.0,
    "similar_to_brands": ["Acme"],
    "relax": True,
}
REST = {"catalogs": ["strada"], "page_size": 50, "max_products": 20}
UNDERSTOOD = {"q": "dress", "understand": True}


@pytest.fixture(scope="module")
def server() -> Iterator[RawServer]:
    """A service of today: it has no list of catalogs, and no `catalog` in a search."""

    def respond(request: Received) -> list[bytes]:
        if "catalog" in request.json:
            wrong = {"loc": ["body", "catalog"], "msg": "Extra", "type": "extra_forbidden"}
            return http(422, {"detail": [wrong]})
        return http(200, page(["a", "b"]))

    with unlisted(respond) as running:
        yield running


@pytest.fixture
def sent(server: RawServer) -> Callable[[], dict[str, Any]]:
    """A function that returns the search that the service answered last, and how many it was."""
    begin = len(server.received)
    return lambda: {
        "searches": len(server.received) - begin,
        "last": next((each.json for each in reversed(server.received[begin:])), None),
    }


def resources(server: RawServer, folder: Path) -> dict[str, Any]:
    octogen = OctogenResource(api_key=dg.EnvVar("THE_KEY"), base_url=server.base_url)
    return stored(folder, octogen)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", KEY)


def in_python(server: RawServer, folder: Path, search: dict[str, Any]) -> None:
    scan_products(ProductSearch(**search), base_url=server.base_url).collect()


def in_code(server: RawServer, folder: Path, search: dict[str, Any]) -> None:
    asset = build_products_asset("products", ProductSearch(**search))
    assert dg.materialize([asset], resources=resources(server, folder)).success


def in_the_launchpad(server: RawServer, folder: Path, search: dict[str, Any]) -> None:
    asset = build_products_asset("products", ProductSearch(q="other", page_size=7))
    config = {"ops": {"products": {"config": search}}}
    dg.materialize([asset], resources=resources(server, folder), run_config=config)


def in_yaml(server: RawServer, folder: Path, search: dict[str, Any]) -> None:
    attributes = {
        "connection": {"api_key": "{{ env.THE_KEY }}", "base_url": server.base_url},
        "storage": {"base_dir": str(folder)},
        "searches": [{"name": "products", "search": search, "checks": False}],
    }
    OctogenComponent.from_attributes_dict(attributes=attributes)  # its errors have no file
    with load(attributes) as (_, defs):
        assert defs.resolve_implicit_global_asset_job_def().execute_in_process().success


READS = [in_python, in_code, in_the_launchpad, in_yaml]


@pytest.mark.parametrize("read", READS)
def test_every_field_of_a_search_reaches_the_service(
    read: Any, server: RawServer, sent: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    assert FILTERS.keys() | REST.keys() == ProductSearch.model_fields.keys()
    read(server, tmp_path, FILTERS | REST)
    assert sent()["last"] == FILTERS | {"catalogs": ["strada"], "limit": 20}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize(
    ("search", "body"),
    [
        ({"catalogs": ["strada"], "q": "dress"}, {"q": "dress", "understand": False}),
        ({"catalogs": ["strada"], "q": None, "price_min": 0, "price_max": 0.0}, {"price_min": 0.0}),
    ],
)
def test_what_is_not_set_is_not_sent_and_zero_is(
    read: Any,
    search: dict[str, Any],
    body: dict[str, Any],
    server: RawServer,
    sent: Callable[[], dict[str, Any]],
    tmp_path: Path,
) -> None:
    read(server, tmp_path, search | {"page_size": 100})
    bound = {"price_max": 0.0} if "price_min" in body else {}
    assert sent()["last"] == body | bound | {"catalogs": ["strada"], "limit": 100}


@pytest.mark.parametrize("read", [in_the_launchpad, in_yaml])
@pytest.mark.parametrize(
    ("search", "named"),
    [
        ({"price_min": 2, "price_max": 1}, "price_min 2.0 is greater than price_max 1.0"),
        ({"facets": [{"name": "fit", "values": ["slim", " "]}]}, "facets.0.values.1"),
        ({"facets": [{"name": "gender", "values": ["mens"]}]}, "gender has no value 'mens'"),
        ({"catalogs": ["b", "a", "b", "a", "c"]}, "`catalogs` contains a, b more than once"),
        ({"page_size": 101}, "page_size"),
    ],
    ids=str,
)
def test_a_mistake_in_a_search_is_named_and_nothing_is_sent(
    read: Any,
    search: dict[str, Any],
    named: str,
    server: RawServer,
    sent: Callable[[], dict[str, Any]],
    tmp_path: Path,
) -> None:
    with pytest.raises((ValueError, dg.Failure, OctogenError)) as refused:
        read(server, tmp_path, search)
    assert named in said(refused.value)
    assert sent()["searches"] == 0
    assert not list(tmp_path.rglob("*.parquet"))


def said(error: Exception) -> str:
    """What an error says, with places written as `facets.0.values`."""
    return re.sub(r"\[(\d+)\]", r".\1", str(error))


def test_the_launchpad_shows_each_field_with_its_description_and_default() -> None:
    asset = build_products_asset("products", ProductSearch(q="boots", price_max=9, page_size=20))
    fields = asset.op.config_schema.config_type.fields  # type: ignore[union-attr]
    assert fields.keys() == ProductSearch.model_fields.keys() | {"accept_shrinking"}
    for name, field in ProductSearch.model_fields.items():
        assert fields[name].description == field.description
        assert not fields[name].is_required
    defaults = {name: each.default_value for name, each in fields.items()}
    assert (defaults["q"], defaults["price_max"], defaults["page_size"]) == ("boots", 9.0, 20)
    assert (defaults["facets"], defaults["max_products"]) == ([], None)


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({}, "All products. "),
        ({"catalogs": ["acme", "zen"]}, "All products of acme, zen. "),
        ({"max_products": 1000}, "The first 1,000 products. "),
        ({"q": "boots"}, "Products that match “boots”. "),
        (UNDERSTOOD, "Products that match “dress” (interpreted by Octogen). "),
        (
            {"price_min": 5, "price_max": 9.5, "catalogs": ["acme"]},
            "Products of acme that match price from 5; price up to 9.5. ",
        ),
        ({"facets": [{"name": "fit", "values": ["slim", "wide"]}]}, "match fit slim or wide. "),
        ({"exclude_facets": [{"name": "fit", "values": ["slim"]}]}, "match not fit slim. "),
        ({"brand_quality_min": 2, "brand_quality_max": 3}, "brand quality from 2; brand quality"),
    ],
)
def test_an_asset_says_in_words_what_it_reads(search: dict[str, Any], words: str) -> None:
    asset = build_products_asset("products", ProductSearch(**search))
    assert words in (asset.get_asset_spec().description or "")


class TestFacets:
    def test_the_names_and_values_are_those_of_the_contract(self) -> None:
        assert [str(name) for name in FacetName] == [
            *("brand_name", "brand_slug", "raw_brand_name", "product_type", "gender"),
            *("age_groups", "color", "color_family", "is_activewear"),
            *(f"category_path.depth_{depth}" for depth in range(7)),
        ]
        assert [str(value) for value in Gender] == ["male", "female", "unisex"]
        assert [str(value) for value in AgeGroup] == ["infant", "toddler", "kids", "adult"]
        assert " ".join(ColorFamily) == (
            "Pink Red Orange Brown Yellow Green Blue Purple White Gray Black"
        )
