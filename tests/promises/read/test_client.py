from __future__ import annotations

import inspect
import pickle
from typing import Any, ClassVar

import httpx
import httpx2
import pytest

from octogen_dagster import ProductSearch
from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.search import CURRENT_FIELDS as FIELDS_OF_TODAY
from octogen_dagster.errors import (
    MissingAPIKeyError,
    OctogenAPIError,
    OctogenAuthenticationError,
    OctogenForbiddenError,
    OctogenInsufficientCreditError,
    OctogenNotFoundError,
    OctogenRateLimitError,
    OctogenResponseError,
    OctogenServerError,
    OctogenTimeoutError,
    OctogenValidationError,
)
from octogen_dagster.sandbox.app import Generation
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.api.clients import ONCE, QUICK, Transport, open_client
from tests.api.servers import (
    KEY,
    RawServer,
    Received,
    catalog_of_shop,
    hanging,
    http,
    page,
    shop,
    unlisted,
)

FAR_AWAY = "https://api.octogen.ai/v1"


def defaults(function: Any) -> dict[str, Any]:
    """The keyword-only arguments that a function names, each with its default."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    named = [each for each in parameters if each.kind is not each.VAR_KEYWORD]
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in named)
    return {parameter.name: parameter.default for parameter in named}


class TestConstruction:
    def test_the_arguments_and_defaults_are_the_seed_s(self) -> None:
        arguments = list(defaults(OctogenClient.__init__).items())
        assert arguments[:4] == [
            ("api_key", None),
            ("base_url", "https://api.octogen.ai/v1"),
            ("timeout", 30.0),
            ("http_client", None),
        ]
        assert all(default is None for _, default in arguments[4:])

    def test_the_named_arguments_of_a_search_have_those_of_the_seed(self) -> None:
        filters = dict.fromkeys(("catalog", "q", "facets", "price_min", "price_max"))
        shown = defaults(OctogenClient.search_products)
        assert shown.items() >= (filters | {"cursor": None, "limit": 50}).items()

    def test_a_missing_key_is_an_error_before_any_request(self, sandbox: Sandbox) -> None:
        with pytest.raises(MissingAPIKeyError, match=r"OCTO_API_KEY.*octogen-dagster sandbox"):
            OctogenClient(base_url=sandbox.base_url)
        assert sandbox.requests == []

    async def test_the_address_may_come_from_the_environment(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OCTOGEN_BASE_URL", sandbox.base_url)
        async with OctogenClient(api_key=sandbox.api_key) as client:
            assert (await client.search_products(limit=1)).uuids

    def test_one_whose_key_was_refused_has_a_repr_for_a_traceback(self) -> None:
        with pytest.raises(ValueError, match="API key") as caught:
            OctogenClient(api_key="two words")
        seen = [each.frame.f_locals.get("self") for each in caught.traceback]
        assert "OctogenClient(base_url=None)" in map(repr, seen)

    @pytest.mark.parametrize("call", ["search", "list", "shop", "count"])
    async def test_an_address_without_its_version_is_told(
        self, sandbox: Sandbox, call: str
    ) -> None:
        base_url = sandbox.base_url.removesuffix("/v1")
        async with OctogenClient(api_key=sandbox.api_key, base_url=base_url) as client:
            calls: dict[str, Any] = {
                "search": lambda: client.search_products(catalog="northpeak"),
                "list": client.list_catalogs,
                "shop": lambda: client.get_domain("acme.com"),
                "count": lambda: client.count_products(ProductSearch()),
            }
            with pytest.raises(
                OctogenNotFoundError, match=r"base_url ends with /v1, such as https://api"
            ):
                await calls[call]()

    def test_its_repr_has_the_base_url_and_it_cannot_be_pickled(self) -> None:
        client = OctogenClient(api_key=KEY)
        assert repr(client) == f"OctogenClient(base_url='{FAR_AWAY}')"
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(client)


class TestTimeout:
    @pytest.mark.parametrize("library", [httpx, httpx2])
    @pytest.mark.parametrize(
        ("given", "named", "used"),
        [(0.05, None, "0.05 s"), (60, 0.06, "0.06 s"), (None, "Timeout", "0.07 s")],
    )
    async def test_the_given_client_s_timeout_counts_unless_another_is_named(
        self, library: Any, given: float | None, named: float | str | None, used: str
    ) -> None:
        timeout = library.Timeout(60, read=0.07) if named == "Timeout" else named
        settings: dict[str, Any] = {} if named is None else {"timeout": timeout}
        with RawServer(lambda _: hanging(lambda: server)) as server:
            async with library.AsyncClient(timeout=given) as http_client:
                client = OctogenClient(
                    api_key=ApiKey(KEY),
                    base_url=server.base_url,
                    http_client=http_client if given else None,
                    retry=ONCE,
                    **settings,
                )
                async with client:
                    with pytest.raises(OctogenTimeoutError, match=f"timeout: {used} per attempt"):
                        await client.list_catalogs()


class TestDomains:
    async def test_a_shop_says_which_catalogs_serve_it(self, transport: Transport) -> None:
        entry = catalog_of_shop("acme", 7, computedAt="soon")
        with unlisted(shops={"bücher.example/x": shop("bücher.example", entry)}) as server:
            async with open_client(server, transport) as client:
                coverage = await client.get_domain(" bücher.example/x ")
        assert server.received[0].target == "/v1/domains/b%C3%BCcher.example%2Fx"
        assert coverage.host == "bücher.example"
        assert [(each.catalog, each.product_count) for each in coverage.catalogs] == [("acme", 7)]
        assert coverage.catalogs[0].computed_at == "soon"


class TestLookup:
    @pytest.mark.parametrize("url", ["", "  "])
    async def test_an_empty_url_is_refused_before_any_request(
        self, sandbox: Sandbox, url: str
    ) -> None:
        async with open_client(sandbox) as client:
            with pytest.raises(ValueError, match="`url` is empty"):
                await client.lookup_product(url)
        assert sandbox.requests == []


class TestSearch:
    async def test_without_arguments_it_searches_all_products(
        self, either: Sandbox, transport: Transport
    ) -> None:
        async with open_client(either, transport) as client:
            found = await client.search_products()
        assert len(found.items) == 50
        assert found.next_cursor
        assert either.requests[-1].body == {"limit": 50}

    async def test_all_pages_take_no_cursor(self, sandbox: Sandbox) -> None:
        arguments: dict[str, Any] = {"cursor": "c"}
        async with open_client(sandbox) as client:
            with pytest.raises(ValueError, match="`cursor` cannot be set"):
                _ = [page async for page in client.iter_pages(**arguments)]
            with pytest.raises(ValueError, match="`cursor` cannot be set"):
                _ = [item async for item in client.iter_products(**arguments)]
        assert sandbox.requests == []


# Every kind of bad response raises its error and never becomes an empty result.


CREDIT = {"code": "insufficient_credit", "top_up_url": "https://octogen.example/top-up"}
REFUSAL = [{"loc": ["body"], "msg": "Input should be valid", "type": "value_error"}]
SHOP_URL = "https://shop.example/1"
OPERATIONS = {
    "The list of catalogs": lambda client, url: client.list_catalogs(),
    f"The product at {SHOP_URL}": lambda client, url: client.lookup_product(url),
    "The search of all catalogs": lambda client, url: client.search_products(),
    "Catalog 'strada'": lambda client, url: client.search_products(catalog="strada"),
}
OPERATION_IDS = ["catalogs", "lookup", "all", "catalog"]


class TestStatus:
    @pytest.mark.parametrize(
        ("status", "kind", "detail", "says", "advice"),
        [
            (400, OctogenAPIError, "Bad Request", "400 Bad Request", "See the detail"),
            (401, OctogenAuthenticationError, "Invalid API key", "401 Invalid", "OCTO_API_KEY"),
            (402, OctogenInsufficientCreditError, CREDIT, "402 insufficient", CREDIT["top_up_url"]),
            (403, OctogenForbiddenError, "api_key_forbidden", "403 api_key", "Ask Octogen"),
            (404, OctogenNotFoundError, "product_not_found", "404 product", "No catalog has"),
            (422, OctogenValidationError, REFUSAL, "422 request: Input", "Correct the field"),
            (429, OctogenRateLimitError, "rate_limit_exceeded", "429 rate_", "Run fewer reads"),
            (500, OctogenServerError, "Internal Server Error", "500 Internal", "Try again later"),
            (503, OctogenServerError, "Service Unavailable", "503 Service", "Try again later"),
        ],
    )
    async def test_the_error_has_the_reason_the_advice_and_the_headers(
        self,
        sandbox: Sandbox,
        transport: Transport,
        status: int,
        kind: type[OctogenAPIError],
        detail: Any,
        says: str,
        advice: str,
    ) -> None:
        sandbox.inject(Fault("status", status, retry_after=3))
        async with open_client(sandbox, transport) as client:
            with pytest.raises(OctogenAPIError) as caught:
                await client.search_products(catalog="strada")
        error = caught.value
        assert type(error) is kind
        assert (error.status_code, error.detail, error.retry_after) == (status, detail, 3.0)
        assert error.request_id == sandbox.requests[-1].request_id
        assert error.response.json() == {"detail": detail}
        library = httpx2 if transport == "httpx2" else httpx
        assert isinstance(error.response, library.Response)
        text = str(error)
        assert text.startswith(f"Catalog 'strada' failed: {says}")
        assert f", request {error.request_id}. " in text
        assert advice in text
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), copy.detail) == (kind, text, detail)
        assert (copy.request_id, copy.retry_after) == (error.request_id, 3.0)


class TestUnusableBody:
    @pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATION_IDS)
    @pytest.mark.parametrize("fault", ["html", "truncate"])
    async def test_a_web_page_or_a_truncated_document_is_an_error(
        self, sandbox: Sandbox, transport: Transport, operation: Any, fault: Any
    ) -> None:
        async with open_client(sandbox, transport, retry=QUICK) as client:
            (product,) = (await client.search_products(limit=1)).items
            await client.lookup_product(product.product_url)  # it learns the generation
            sandbox.inject(Fault(fault))
            requests = len(sandbox.requests)
            with pytest.raises(OctogenResponseError, match="not valid JSON") as caught:
                await operation(client, product.product_url)
        assert caught.value.status_code == 200
        assert caught.value.request_id == sandbox.requests[-1].request_id
        assert len(sandbox.requests) == requests + 1, "it is not retried"
        assert ("text/html" if fault == "html" else "application/json") in str(caught.value)

    async def test_the_error_of_a_bulk_read_names_the_page(self, sandbox: Sandbox) -> None:
        sandbox.inject(Fault("wrong_type", page=3))
        async with open_client(sandbox) as client:
            with pytest.raises(
                OctogenResponseError,
                match=r"^Catalog 'strada', page 3, failed: the service",
            ):
                _ = [item async for item in client.iter_products(catalog="strada", limit=10)]

    @pytest.mark.parametrize("body", [b"", b"null", [], {}, {"items": {}}, {"detail": "x"}])
    @pytest.mark.parametrize("status", [200, 201])
    async def test_another_shape_is_not_an_empty_page(self, body: Any, status: int) -> None:
        with RawServer(lambda _: http(status, body)) as server:
            async with open_client(server) as client:
                with pytest.raises(OctogenResponseError) as caught:
                    await client.search_products()
                with pytest.raises(OctogenResponseError):
                    _ = [item async for item in client.iter_products()]
        assert caught.value.status_code == status


def refusal(*fields: str, reason: str = "x") -> list[bytes]:
    """A 422 that names these fields."""
    detail = [{"loc": ["body", field], "msg": "refused", "type": reason} for field in fields]
    return http(422, {"detail": detail})


SEED_FIELDS = {"catalog", "q", "facets", "price_min", "price_max", "cursor", "limit"}
INTERIM_FIELDS = SEED_FIELDS | {"catalogs"}
CURRENT_FIELDS = (SEED_FIELDS - {"catalog"}) | set(FIELDS_OF_TODAY)


def service(*generations: set[str]) -> RawServer:
    """A service that knows these fields, or other ones in each request until the last ones."""
    left = list(generations)

    def respond(request: Received) -> list[bytes]:
        known = left.pop(0) if len(left) > 1 else left[0]
        unknown = sorted(request.json.keys() - known)
        return refusal(*unknown, reason="extra_forbidden") if unknown else http(200, page(["a"]))

    return RawServer(respond)


class TestCurrentGeneration:
    async def test_an_unknown_catalog_is_an_empty_page(self, current: Sandbox) -> None:
        async with open_client(current) as client:
            page = await client.search_products(catalog="nosuch")
        assert (page.items, page.next_cursor) == ([], None)


KEYWORDS: dict[str, Any] = {"q": "jacket", "limit": 5}
FILTERS: dict[str, Any] = {
    "facets": [{"name": "gender", "values": ["male"]}],
    "price_min": 1,
    "price_max": 900,
    "cursor": "c",
}


class TestKeywords:
    async def test_the_current_generation_is_told_from_the_first_request_not_to_understand_them(
        self, transport: Transport
    ) -> None:
        with service(CURRENT_FIELDS) as server:
            async with open_client(server, transport) as client:
                await client.search_products(**KEYWORDS)
                await client.search_products(catalog="acme", **KEYWORDS, **FILTERS)
                await client.search_products(catalog="acme", **KEYWORDS)
                assert client.generation == "current"
        sent = KEYWORDS | {"understand": False}
        assert [request.json for request in server.received] == [
            sent,
            sent | FILTERS | {"catalog": "acme"},
            sent | FILTERS | {"catalogs": ["acme"]},
            sent | {"catalogs": ["acme"]},
        ]

    async def test_a_service_that_becomes_current_is_told_again(self) -> None:
        with service(SEED_FIELDS, SEED_FIELDS, CURRENT_FIELDS) as server:
            async with open_client(server) as client:
                await client.search_products(catalog="acme", **KEYWORDS)
                await client.search_products(catalog="acme", **KEYWORDS)
        assert [request.json for request in server.received[2:]] == [
            KEYWORDS | {"catalog": "acme"},
            KEYWORDS | {"catalogs": ["acme"], "understand": False},
        ]


@pytest.mark.parametrize("generation", ["seed", "current"])
async def test_keywords_find_the_same_products_in_each_generation(
    generation: Generation, transport: Transport
) -> None:
    with Sandbox(catalogs={"northpeak": 120}, api_key=KEY, generation=generation) as sandbox:
        async with open_client(sandbox, transport) as client:
            found = await client.search_products(catalog="northpeak", q="red jacket")
            again = await client.search_products(catalog="northpeak", q="red jacket")
    assert found.uuids == again.uuids
    assert len(found.uuids) == 1
    assert [request.status for request in sandbox.requests] == [422, 200, 200]


class TestFieldsOfTheCurrentGeneration:
    CURRENT: ClassVar[dict[str, Any]] = {
        "understand": True,
        "exclude_facets": [{"name": "pattern", "values": ["floral"]}],
        "omit_generated_facets": ["color"],
        "fallback_category": ["apparel & accessories"],
        "brand_quality_min": 2,
        "brand_quality_max": 5,
        "similar_to_brands": ["Acme"],
        "relax": True,
    }

    @pytest.mark.parametrize("known", [SEED_FIELDS, INTERIM_FIELDS])
    @pytest.mark.parametrize(
        ("search", "named"),
        [
            (CURRENT, ", ".join(CURRENT)),
            ({"understand": True}, "understand"),
            ({"similar_to_brands": ["Acme"]}, "similar_to_brands"),
        ],
    )
    async def test_an_older_generation_is_an_error_that_names_them(
        self, transport: Transport, known: set[str], search: dict[str, Any], named: str
    ) -> None:
        message = (
            "Catalog 'acme' failed: the service uses the older API contract, which does not "
            f"support {named} (422). Remove these fields, or use a service with the current API "
            "contract."
        )
        with service(known) as server:
            async with open_client(server, transport, retry=QUICK) as client:
                with pytest.raises(OctogenValidationError) as caught:
                    await client.search_products(catalog="acme", **KEYWORDS, **search)
        assert str(caught.value) == message
        assert caught.value.status_code == 422
        assert {entry["loc"][-1] for entry in caught.value.detail} >= search.keys()


URL = "https://shop.example/1"
OPTIONS = {"resolutionMode": "index_only", "matchMode": "strict"}


def bodies(server: RawServer) -> list[Any]:
    return [request.json for request in server.received]


async def test_only_the_index_is_asked_and_only_for_this_very_address(
    current: Sandbox, transport: Transport
) -> None:
    async with open_client(current, transport) as client:
        (product,) = (await client.search_products(limit=1)).items
        found = await client.lookup_product(product.product_url)
    assert found.product.uuid == product.uuid
    assert current.requests[-1].body == {"url": product.product_url, **OPTIONS}
    assert [request.status for request in current.requests] == [200, 200]


async def test_a_service_that_knows_neither_field_is_asked_without_them_from_then_on(
    sandbox: Sandbox, transport: Transport
) -> None:
    async with open_client(sandbox, transport) as client:
        first, second = (await client.search_products(limit=2)).items
        for product in (first, second):
            assert (await client.lookup_product(product.product_url)).product.uuid == product.uuid
        assert client.statistics.retries == 0
    lookups = [(request.body, request.status) for request in sandbox.requests[1:]]
    assert lookups == [
        ({"url": first.product_url, **OPTIONS}, 422),
        ({"url": first.product_url}, 200),
        ({"url": second.product_url}, 200),
    ]


@pytest.mark.parametrize(
    "response",
    [
        refusal("url"),
        http(422, {"detail": "invalid_product_url"}),
        http(422, {"detail": "unsafe_url"}),
        http(422, {"detail": [{"loc": [], "msg": "empty"}, "matchMode", None]}),
        http(422, {"detail": {"matchMode": "refused"}}),
        http(422, b"matchMode"),
    ],
)
async def test_any_other_refusal_is_an_error_and_changes_nothing(response: list[bytes]) -> None:
    with RawServer(lambda _: response) as server:
        async with open_client(server) as client:
            for _ in range(2):
                with pytest.raises(OctogenValidationError):
                    await client.lookup_product(URL)
    assert bodies(server) == [{"url": URL, **OPTIONS}] * 2
