from __future__ import annotations

from typing import Any, ClassVar

import pytest

from octogen_dagster.api.search import CURRENT_FIELDS as FIELDS_OF_TODAY
from octogen_dagster.errors import OctogenValidationError
from octogen_dagster.sandbox.app import Generation
from octogen_dagster.sandbox.server import Sandbox
from tests.api.clients import QUICK, Transport, open_client
from tests.api.servers import KEY, RawServer, Received, http, page


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
            f"Catalog 'acme': the service speaks the older contract, which has no {named} (422). "
            "Search without, or read a service of the current contract."
        )
        with service(known) as server:
            async with open_client(server, transport, retry=QUICK) as client:
                with pytest.raises(OctogenValidationError) as caught:
                    await client.search_products(catalog="acme", **KEYWORDS, **search)
        assert str(caught.value) == message
        assert caught.value.status_code == 422
        assert {entry["loc"][-1] for entry in caught.value.detail} >= search.keys()
