"""Each request body that a public call sends is valid by both modules of published models.

`octogen_ai_sdk.models` has the limits of the requests, `octogen_ai_sdk.generated.models` is
generated from the live service. What they would refuse is refused before a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import dagster as dg
import httpx
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from octogen_ai_sdk import models
from octogen_ai_sdk.operations import OPERATIONS

import octogen_dagster as od
from octogen_dagster.api.search import FacetName
from octogen_dagster.errors import OctogenNotFoundError
from octogen_dagster.schemas import PRODUCT_SCHEMA
from tests.api.clients import open_client
from tests.api.servers import KEY, RawServer, Received, counted, http, page
from tests.published import published
from tests.published_service import JUDGES, PublishedService, refusal, refusal_of
from tests.results import octogen_at, scan, stored

SEARCH, LOOKUP, COUNTS = "/v1/products/search", "/v1/products/lookup", "/v1/products/facet-counts"
EVERY_FIELD: dict[str, Any] = {
    "q": "linen dress",
    "facets": [{"name": "gender", "values": ["female", "unisex"]}],
    "price_min": 0,
    "price_max": 99.5,
    "understand": True,
    "exclude_facets": [{"name": "pattern", "values": ["floral"]}],
    "omit_generated_facets": ["color"],
    "fallback_category": ["apparel & accessories", "clothing"],
    "brand_quality_min": 2,
    "brand_quality_max": 6,
    "similar_to_brands": ["Acme"],
    "relax": True,
}
CURSOR = "\x00 Größe\x1c"
LIST_ID = "{urlListId}"
NOT_OFFERED = {"debug", "diversity"}

pytestmark = pytest.mark.filterwarnings("ignore:The facet")


def answer(path: str, body: bytes) -> tuple[int, dict[str, Any]]:
    """The answer of a service of today that knows no product by its address."""
    if error := refusal_of(path, body):
        return 422, refusal(error)
    if path == COUNTS:
        return 200, counted(3)
    if path == SEARCH:
        is_first = not json.loads(body).get("cursor")
        return 200, page(["a"], CURSOR) if is_first else page(["b"])
    return 404, {"detail": "product_not_found"}


@pytest.fixture(scope="module")
def server() -> Iterator[RawServer]:
    with RawServer(lambda request: http(*answer(request.target, request.body))) as running:
        yield running


def judge(received: list[Received]) -> None:
    """Fail if a published model refuses a body.

    A client that does not know the service's generation yet sends one catalog as the older one has
    it, and in today's way after the 422.
    """
    for request in received:
        body = request.json if request.target in JUDGES else {}
        if "catalog" in body:
            body["catalogs"] = [body.pop("catalog")]
        assert refusal_of(request.target, json.dumps(body)) is None
    searches = [request.json for request in received if request.target == SEARCH]
    assert not any("catalog" in body for body in searches[1:])


some = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
# Python, Rust and others do not agree on what is blank, and half of a pair is no Unicode.
odd = st.text(st.sampled_from("\x1c\x85\ufeff\u200b \x00ßa"), max_size=2) | st.sampled_from(
    ["\x1c", "\ud800", "x" * 3000]
)
name = some | st.sampled_from([*FacetName, "fit", "FIT", "attribute_facets.fit"])
number = st.floats() | st.integers(-1, 8) | st.just(10**400)
good_facets = st.lists(
    st.fixed_dictionaries({"name": name, "values": st.lists(some, min_size=1, max_size=3)}),
    max_size=3,
)
any_facets = st.lists(
    st.fixed_dictionaries({"name": name | odd, "values": st.lists(some | odd, max_size=3)}),
    max_size=3,
) | st.sampled_from([50, 51]).map(
    lambda size: [{"name": f"attribute {each}", "values": ["x"]} for each in range(size)]
)


def up_to(limit: int) -> st.SearchStrategy[list[str]]:
    """Lists of a few texts, and some that are about as long as they may be."""
    return st.lists(some | odd, max_size=3) | st.sampled_from([limit, limit + 1]).map(
        lambda size: [f"value {each}" for each in range(size)]
    )


Argument = tuple[st.SearchStrategy[Any], st.SearchStrategy[Any]]
"""Good values of an argument, and any."""

SEARCH_ARGUMENTS: dict[str, Argument] = {
    "q": (some.filter(str.strip), some | odd | st.none()),
    "facets": (good_facets, any_facets),
    "price_min": (st.floats(0, 50), number),
    "price_max": (st.floats(50, 1e9), number),
    "understand": (st.just(True), st.booleans()),
    "exclude_facets": (good_facets, any_facets),
    "omit_generated_facets": (st.lists(some, max_size=2), up_to(50)),
    "fallback_category": (st.lists(some, min_size=1, max_size=4), up_to(4)),
    "brand_quality_min": (st.floats(1, 3), number),
    "brand_quality_max": (st.floats(3, 6), number),
    "similar_to_brands": (st.lists(some, min_size=1, max_size=10), up_to(10)),
    "relax": (st.booleans(), st.booleans()),
}
OF_UNDERSTOOD_KEYWORDS = ("omit_generated_facets", "fallback_category", "relax")


@st.composite
def arguments(draw: st.DrawFn, /, **others: Argument) -> dict[str, Any]:
    """The arguments of a search, some of which may be anything."""
    offered = SEARCH_ARGUMENTS | others
    good = {key: each for key, (each, _) in offered.items()}
    drawn = draw(st.fixed_dictionaries({}, optional=good))
    odd_ones = draw(st.lists(st.sampled_from(sorted(offered)), max_size=2))
    if not ("q" in drawn and "understand" in drawn):
        if set(odd_ones) & set(OF_UNDERSTOOD_KEYWORDS):
            drawn |= {"q": "boots", "understand": True}
        else:
            for key in OF_UNDERSTOOD_KEYWORDS:
                drawn.pop(key, None)
    return drawn | {key: draw(offered[key][1]) for key in odd_ones}


def attempt(received: list[Received], call: Callable[[], object]) -> list[Received]:
    """Return what a call sent, all of which is valid; nothing if it was refused before.

    Args:
        received: The requests that a server received.
        call: Sends requests to it.
    """
    begin = len(received)
    try:
        with warnings.catch_warnings(), contextlib.suppress(OctogenNotFoundError):
            warnings.simplefilter("ignore")
            call()
    except ValueError:
        assert len(received) == begin
    judge(received[begin:])
    return received[begin:]


def run(received: list[Received], call: Callable[[od.OctogenClient], Awaitable[object]]) -> None:
    """Run a call of the client, and add what it sends."""

    def respond(request: httpx.Request) -> httpx.Response:
        path, body = request.url.path, request.content
        received.append(Received(request.method, path, dict(request.headers), body))
        status, content = answer(path, body)
        return httpx.Response(status, json=content)

    async def called() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(respond)) as sender:
            await call(od.OctogenClient(api_key=KEY, http_client=sender))

    asyncio.run(called())


def of_client(call: Callable[[od.OctogenClient], Awaitable[object]]) -> list[Received]:
    """`attempt` for a call of the client."""
    received: list[Received] = []
    return attempt(received, lambda: run(received, call))


any_page = arguments(
    catalog=(some.filter(str.strip), some | odd),
    catalogs=(st.lists(some.filter(str.strip), max_size=3), up_to(500)),
    cursor=(some, some | odd),
    limit=(st.integers(1, 100), st.integers(-1, 102)),
)
any_search = arguments(
    catalogs=(st.just(["acme"]), up_to(500)),
    page_size=(st.integers(2, 100), st.integers(-1, 102)),
    max_products=(st.integers(1, 5), st.integers(-1, 5)),
)
often = settings(published, max_examples=60)
seldom = settings(published, max_examples=20)


def test_all_arguments_of_a_search_are_here() -> None:
    names = SEARCH_ARGUMENTS.keys()
    assert names == EVERY_FIELD.keys()
    assert od.ProductSearch.model_fields.keys() - {"catalogs", "page_size", "max_products"} == names
    published_names = models.ProgrammaticProductSearchRequest.model_fields.keys()
    assert names | {"catalogs", "cursor", "limit"} == published_names - NOT_OFFERED


@often
@given(any_page)
def test_a_search_of_the_client(chosen: dict[str, Any]) -> None:
    of_client(lambda client: client.search_products(**chosen))


@published
@given(arguments(catalog=(some, some | odd), limit=(st.integers(1, 100), st.integers(-1, 102))))
def test_all_pages_of_a_search(chosen: dict[str, Any]) -> None:
    async def read(client: od.OctogenClient) -> None:
        assert len([product async for product in client.iter_products(**chosen)]) == 2

    if sent := of_client(read):
        first, last = (each.json for each in sent[-2:])
        assert last == first | {"cursor": CURSOR}


@published
@given(some | odd)
def test_a_lookup(url: str) -> None:
    assert bool(of_client(lambda client: client.lookup_product(url))) == (
        bool(url.strip()) and url != "\ud800"
    )


@published
@given(any_search, up_to(500))
@example({"catalogs": ["\x1facme "]}, [])
def test_a_count_of_products(chosen: dict[str, Any], catalogs: list[str]) -> None:
    async def count(client: od.OctogenClient) -> None:
        await client.count_products(od.ProductSearch(**chosen), catalogs)

    for request in of_client(count):
        named = od.ProductSearch(**chosen).catalogs
        assert request.json.get("catalogs", []) == (catalogs or named)


argument = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=5)


numbers = st.floats(allow_nan=False) | st.integers(-5, 60)
price = pl.col("current_price")
predicates = st.one_of(
    st.builds(lambda low: price >= low, numbers),
    st.builds(price.is_between, numbers, numbers),
    st.builds(lambda value: pl.lit(value) > price, numbers),
    st.builds(lambda keys: pl.col("catalog_key").is_in(keys), st.lists(some, max_size=3)),
    st.builds(
        lambda key, low: (pl.col("catalog_key") == key) & (price > low),
        st.sampled_from(["acme", "ACME", " "]),
        numbers,
    ),
)


@published
@given(any_search, st.none() | predicates, st.none() | st.integers(0, 3))
def test_a_scan(
    server: RawServer, chosen: dict[str, Any], predicate: pl.Expr | None, rows: int | None
) -> None:
    def read() -> None:
        frame = scan(server, od.ProductSearch(**chosen))
        frame = frame if predicate is None else frame.filter(predicate)
        frame = frame if rows is None else frame.head(rows)
        with contextlib.suppress(od.OctogenError):
            frame.collect()

    attempt(server.received, read)


@pytest.mark.long
@seldom
@given(st.lists(some | odd.filter(lambda text: text != "\ud800"), min_size=2, max_size=8))
def test_the_parts_of_a_catalog(brands: list[str]) -> None:
    products = [f"{number:03}" for number in range(60)]
    brand_of = {each: brands[place % len(brands)] for place, each in enumerate(products)}
    service = PublishedService(
        {"acme": products}, brands=brand_of, hosts={"acme.example": ["acme"]}
    )
    search = od.ProductSearch(catalogs=["acme"], page_size=1)
    with service.running():
        frame = scan(
            service,
            search,
            catalog_source=od.ShopCatalogs(hosts=["acme.example"]),
            max_extra_pages_percent=50,
        )
        assert sorted(frame.collect()["uuid"]) == products
        judge(service.received)


def test_the_lookups_of_details(tmp_path: Path) -> None:
    urls = ["https://acme.example/1", "", " ", "\x1c", "\ufeff", "\x00", "Größe 靴下", "x" * 3000]

    @dg.asset
    def products() -> pl.DataFrame:
        rows = [{"uuid": str(place), "product_url": url} for place, url in enumerate(urls)]
        return pl.DataFrame(rows, schema=PRODUCT_SCHEMA)

    with RawServer(lambda request: http(*answer(request.target, request.body))) as server:
        resources = stored(tmp_path, octogen_at(server))
        details = od.build_product_details_asset(products, max_failed_percent=100)
        assert dg.materialize([products, details], resources=resources).success
        judge(server.received)
    sent = {each.json["url"] for each in server.received}
    assert sent == {url for url in urls if url.strip()}
    frame = pl.read_parquet(tmp_path / "products_details.parquet")
    status = {url: "gone" if url.strip() else "failed" for url in urls}
    assert dict(frame.select("product_url", "status").rows()) == status


@published
@given(arguments())
@example(EVERY_FIELD)
def test_a_search_is_read_as_meant(chosen: dict[str, Any]) -> None:
    for request in of_client(lambda client: client.search_products(**chosen)):
        sent = models.ProgrammaticProductSearchRequest.model_validate_json(request.body)
        has_keywords = bool((sent.q or "").strip())
        assert not has_keywords or sent.understand is chosen.get("understand", False)
        for field, meant in chosen.items():
            if field != "understand":
                assert _plain(getattr(sent, field)) == _plain(meant)


def _plain(value: Any) -> Any:
    """A value of a search as it is compared: nothing is as good as none."""
    if isinstance(value, list):
        return [_plain(each) for each in value] or None
    if isinstance(value, models.Facet):
        value = value.model_dump()
    if isinstance(value, dict):
        return {"name": value["name"].strip(), "values": [each.strip() for each in value["values"]]}
    return value.strip() if isinstance(value, str) else value or None


async def test_each_operation_of_the_client_is_a_published_one_or_the_seed_s() -> None:
    with RawServer(lambda _: http(404, {"detail": "Not Found"})) as server:
        async with open_client(server) as client:
            calls = {
                "list_catalogs": client.list_catalogs(),
                "list_catalog_states": client.list_catalog_states(),
                "get_me": client.get_me(),
                "count_products": client.count_products(od.ProductSearch()),
                "get_domain": client.get_domain("{host}"),
                "search_products": client.search_products(),
                "lookup_product": client.lookup_product("https://shop.example/1"),
                "create_coverage_url_list": client.create_coverage_url_list("q3"),
                "list_coverage_url_lists": client.list_coverage_url_lists(),
                "get_coverage_url_list": client.get_coverage_url_list(LIST_ID),
                "delete_coverage_url_list": client.delete_coverage_url_list(LIST_ID),
                "add_coverage_url_list_urls": client.add_coverage_url_list_urls(LIST_ID, ["x"]),
                "remove_coverage_url_list_urls": client.remove_coverage_url_list_urls(
                    LIST_ID, ["x"]
                ),
                "check_coverage_url_list_urls": client.check_coverage_url_list_urls(LIST_ID, ["x"]),
                "list_coverage_url_list_urls": client.list_coverage_url_list_urls(LIST_ID),
            }
            for call in calls.values():
                with pytest.raises(OctogenNotFoundError):
                    await call
    sent = {(each.method, unquote(each.target).removeprefix("/v1")) for each in server.received}
    # The seed's own, and that of clients newer than the published one.
    assert sent - set(OPERATIONS.values()) == {("GET", "/catalogs"), ("GET", "/stores/{host}")}
    assert sent & set(OPERATIONS.values()) == {
        OPERATIONS[name]
        for name in (
            "getMe",
            "countProductFacets",
            "getDomain",
            "searchProducts",
            "lookupProduct",
            "addUrlListUrls",
            "checkUrlListUrls",
            "createUrlList",
            "deleteUrlList",
            "getUrlList",
            "listUrlListUrls",
            "listUrlLists",
            "removeUrlListUrls",
        )
    }
