"""The REST contract over the socket, statement by statement, in both generations."""

import time
import uuid
from datetime import datetime
from typing import Any

import httpx
import pytest

from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.sandbox.calls import connect, iter_pages, search, uuids

_LIST_ITEM_FIELDS = {
    "uuid",
    "productUrl",
    "title",
    "brand",
    "currentPrice",
    "originalPrice",
    "imageUrl",
    "images",
    "rating",
    "updatedAt",
    "isActive",
}
_CURRENT_ITEM_FIELDS = _LIST_ITEM_FIELDS | {
    "catalogKey",
    "catalogDisplayName",
    "categoryPath",
    "colors",
    "sizes",
    "currency",
    "gender",
    "inStock",
    "primaryImage",
    "displayMatchScore",
    "rawScore",
}
_BOOTS = ["chelsea boots", "rain boots"]
_FULL_VIEW_FIELDS = {
    "description",
    "inStock",
    "categories",
    "sizes",
    "colors",
    "tags",
    "variants",
    "details",
    "audience",
    "identifiers",
    "breadcrumbs",
    "promotions",
    "reviews",
    "videos",
    "enrichment",
}


class TestKey:
    @pytest.mark.parametrize("authorization", [None, "", "Basic abc", "Bearer"])
    def test_a_missing_or_malformed_key_is_a_401(
        self, sandbox: Sandbox, authorization: str | None
    ) -> None:
        headers = {} if authorization is None else {"Authorization": authorization}
        response = httpx.get(f"{sandbox.base_url}/catalogs", headers=headers)
        assert response.status_code == 401
        assert response.json() == {"detail": "Authorization Bearer token required"}

    def test_another_key_is_a_401(self, sandbox: Sandbox) -> None:
        with connect(sandbox, api_key=sandbox.api_key + "x") as client:
            response = search(client)
        assert response.status_code == 401
        assert response.json() == {"detail": "Invalid API key"}


class TestCatalogs:
    def test_they_are_listed_with_their_facts(self, client: httpx.Client) -> None:
        northpeak, strada = client.get("/catalogs").json()
        assert northpeak == {
            "catalog": "northpeak",
            "displayName": "Northpeak Outfitters",
            "sourceBaseUrl": "https://www.northpeak.example",
            "productCount": 120,
            "lastIndexedAt": "2026-01-15T06:00:00Z",
        }
        assert strada["productCount"] == 30

    def test_without_grants_there_are_none(self) -> None:
        with Sandbox(catalogs=0, generation="seed") as sandbox, connect(sandbox) as client:
            assert client.get("/catalogs").json() == []
            assert search(client).json() == {"items": [], "nextCursor": None}

    def test_the_current_generation_has_no_such_route(self, current_client: httpx.Client) -> None:
        assert current_client.get("/catalogs").status_code == 404


class TestRouting:
    def test_an_unknown_path_is_a_404(self, client: httpx.Client) -> None:
        response = client.get("/me")
        assert response.status_code == 404
        assert response.json() == {"detail": "Not Found"}

    def test_another_method_is_a_405(self, client: httpx.Client) -> None:
        response = client.get("/products/search")
        assert response.status_code == 405
        assert response.headers["allow"] == "POST"


class TestSearch:
    def test_an_item_of_the_seed_generation(self, client: httpx.Client) -> None:
        items = search(client, catalog="northpeak", limit=100).json()["items"]
        assert set().union(*items) == _LIST_ITEM_FIELDS
        assert all(str(uuid.UUID(item["uuid"])) == item["uuid"] for item in items)
        images = [url for item in items for url in item.get("images", ())]
        assert all(isinstance(url, str) for url in images)
        branded = [brand for item in items if (brand := item.get("brand"))]
        assert set().union(*branded) == {"name", "slug", "url", "description"}
        rated = [rating for item in items if (rating := item.get("rating"))]
        assert set().union(*rated) == {"average", "count"}
        updated = [text for item in items if (text := item.get("updatedAt"))]
        assert all(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ") for text in updated)
        assert images
        assert updated

    def test_an_item_of_the_current_generation(self, current_client: httpx.Client) -> None:
        items = search(current_client, limit=100).json()["items"]
        assert set().union(*items) == _CURRENT_ITEM_FIELDS
        images = [image for item in items for image in item.get("images", ())]
        assert set().union(*images) == {
            "url",
            "cdnUrl",
            "width",
            "height",
            "mimeType",
            "sizeBytes",
        }
        assert any(image.get("cdnUrl") is None for image in images)
        assert any(image.get("width") == 1200 for image in images)
        assert {item["catalogKey"] for item in items} == {"northpeak", "strada"}
        assert {item.get("displayMatchScore") for item in items} == {None}

    def test_both_generations_show_the_same_products(
        self, client: httpx.Client, current_client: httpx.Client
    ) -> None:
        seed, current = (search(c, limit=100).json()["items"] for c in (client, current_client))
        assert uuids(seed) == uuids(current)

    def test_scores_come_with_keywords(self, current_client: httpx.Client) -> None:
        items = search(current_client, q="boots").json()["items"]
        scores = [score for item in items if (score := item.get("displayMatchScore"))]
        assert scores
        assert all(type(score) is int and 60 < score <= 100 for score in scores)
        assert all(item["rawScore"] > 0 for item in items if item.get("rawScore") is not None)

    def test_a_page_of_the_current_generation_says_what_ran(
        self, current_client: httpx.Client
    ) -> None:
        response = search(
            current_client,
            q=" boots ",
            catalogs=["strada", "strada"],
            price_max=500,
            facets=[{"name": "gender", "values": ["male"]}],
        )
        page = response.json()
        assert page["requestId"] == response.headers["x-request-id"]
        assert page["effectiveQuery"] == {
            "text": "boots",
            "understood": True,
            "catalogs": ["strada"],
            "facets": [
                {"name": "gender", "values": ["male"], "source": "caller"},
                {"name": "product_type", "values": _BOOTS, "source": "generated"},
                {
                    "name": "category_path.depth_0",
                    "values": ["apparel & accessories"],
                    "source": "generated",
                },
            ],
            "excludeFacets": [],
            "priceMin": None,
            "priceMax": 500.0,
            "brandQualityMin": None,
            "brandQualityMax": None,
            "similarToBrands": None,
            "relaxation": None,
        }

    def test_the_older_generations_say_nothing_of_it(
        self, client: httpx.Client, interim_client: httpx.Client
    ) -> None:
        for older in (client, interim_client):
            assert search(older, q="boots").json().keys() <= {"items", "nextCursor"}

    def test_the_last_page_of_each_generation(
        self, client: httpx.Client, current_client: httpx.Client
    ) -> None:
        assert search(client, catalog="strada").json()["nextCursor"] is None
        pages = [
            search(current_client, catalogs=["strada"], limit=limit).json()
            for limit in range(60, 80)
        ]
        assert {page.get("nextCursor") for page in pages} == {None}
        assert {"nextCursor" in page for page in pages} == {True, False}

    def test_a_page_has_50_items_unless_asked_otherwise(self, client: httpx.Client) -> None:
        assert len(search(client).json()["items"]) == 50
        assert len(search(client, limit=7).json()["items"]) == 7

    def test_without_a_catalog_all_are_searched(self, client: httpx.Client) -> None:
        shown = [item for page in iter_pages(client, limit=40) for item in page]
        hosts = {item["productUrl"].split("/")[2] for item in shown}
        assert len(shown) == len(set(uuids(shown))) == 150
        assert hosts == {"www.northpeak.example", "www.strada.example"}

    def test_a_search_can_be_restricted_in_each_generation(
        self, client: httpx.Client, current_client: httpx.Client
    ) -> None:
        assert len(search(client, catalog="strada").json()["items"]) == 30
        assert len(search(current_client, catalogs=["strada"]).json()["items"]) == 30
        both = [
            i for page in iter_pages(current_client, catalogs=["strada", "northpeak"]) for i in page
        ]
        assert len(both) == 150

    def test_an_unknown_catalog_is_a_404_by_the_field_catalog(
        self, client: httpx.Client, interim_client: httpx.Client
    ) -> None:
        for older in (client, interim_client):
            response = search(older, catalog="voltaic")
            assert response.status_code == 404
            assert response.json() == {"detail": "catalog_not_found"}

    def test_unknown_keys_match_nothing_by_the_field_catalogs(
        self, interim_client: httpx.Client, current_client: httpx.Client
    ) -> None:
        for newer in (interim_client, current_client):
            response = search(newer, catalogs=["voltaic"])
            assert (response.status_code, response.json()["items"]) == (200, [])
            assert len(search(newer, catalogs=["voltaic", "strada"]).json()["items"]) == 30

    def test_the_interim_generation_has_the_list_and_images_as_objects(
        self, interim_client: httpx.Client
    ) -> None:
        assert len(interim_client.get("/catalogs").json()) == 2
        items = search(interim_client, limit=100).json()["items"]
        assert all(isinstance(image, dict) for item in items for image in item.get("images", ()))
        assert all(item.keys() <= _LIST_ITEM_FIELDS for item in items)


class TestUnderstanding:
    def test_generated_facets_are_applied_and_reported(self, current_client: httpx.Client) -> None:
        page = search(current_client, q="women's boots", limit=100).json()
        generated = {facet["name"]: facet["values"] for facet in page["effectiveQuery"]["facets"]}
        assert generated["gender"] == ["female"]
        assert page["effectiveQuery"]["text"] == "boots"
        assert page["items"]
        assert {item.get("gender") for item in page["items"]} == {"female"}

    def test_keywords_can_be_matched_as_written(self, current_client: httpx.Client) -> None:
        page = search(current_client, q="women's boots", understand=False).json()
        assert page["items"] == []
        assert page["effectiveQuery"]["text"] == "women's boots"
        assert page["effectiveQuery"]["understood"] is False

    def test_later_pages_keep_the_understanding_of_page_one(
        self, current: Sandbox, current_client: httpx.Client
    ) -> None:
        body = {"q": "boots", "limit": 2}
        first = search(current_client, **body).json()
        current.understand_as("boots", {"gender": ["male"]})
        second = search(current_client, **body, cursor=first["nextCursor"]).json()
        anew = search(current_client, **body).json()
        assert second["effectiveQuery"] == first["effectiveQuery"] != anew["effectiveQuery"]

    def test_a_relaxed_search_continues_relaxed(self, current_client: httpx.Client) -> None:
        body = {"q": "acme silk purple boots", "relax": True, "limit": 2}
        first = search(current_client, **body).json()
        relaxation = first["effectiveQuery"]["relaxation"]
        assert relaxation["rounds"] > 0
        assert relaxation["declinedRounds"] == relaxation["rounds"] - 1
        assert "brand_name" in {facet["name"] for facet in relaxation["droppedFacets"]}
        second = search(current_client, **body, cursor=first["nextCursor"]).json()
        assert second["items"]
        assert second["effectiveQuery"] == first["effectiveQuery"]

    def test_relaxing_says_if_it_found_nothing(self, current_client: httpx.Client) -> None:
        page = search(current_client, q="acme zebra", relax=True).json()
        assert page["items"] == []
        assert page["effectiveQuery"]["relaxation"] == {
            "rounds": 0,
            "declinedRounds": 1,
            "droppedFacets": [],
        }


class TestCoverage:
    def test_a_host_has_all_its_catalogs(self) -> None:
        catalogs = {"northpeak": 30, "strada": 10, "northpeak.outlet": 0}
        sandbox = Sandbox(catalogs=catalogs, generation="current")
        with sandbox, connect(sandbox) as client:
            covered = client.get("/domains/www.Northpeak.example").json()
        assert covered["host"] == "northpeak.example"
        counts = [(entry["catalog"], entry["productCount"]) for entry in covered["catalogs"]]
        assert counts == [("northpeak", 30), ("northpeak.outlet", 0)]

    def test_an_index_run_is_seen(self, current: Sandbox, current_client: httpx.Client) -> None:
        before = current_client.get("/domains/strada.example").json()["catalogs"][0]
        url = search(current_client, catalogs=["strada"]).json()["items"][0]["productUrl"]
        current.remove_product(url)
        current.touch("strada")
        after = current_client.get("/domains/strada.example").json()["catalogs"][0]
        assert (before["productCount"], after["productCount"]) == (30, 29)
        assert before["computedAt"] < after["computedAt"]

    @pytest.mark.parametrize("host", ["nowhere.example", "a%2Fb", "x"])
    def test_other_hosts_are_not_covered(self, current_client: httpx.Client, host: str) -> None:
        response = current_client.get(f"/domains/{host}")
        assert response.status_code == 404
        assert response.json() == {"detail": "domain_not_covered"}

    def test_the_key_and_its_limit_are_shown(self, current: Sandbox) -> None:
        current.set_rate_limit(10)
        with connect(current) as client:
            me = client.get("/me").json()
        assert me["principal"] == "api_key"
        assert me["organization"]["type"] == "catalog_partner"
        assert (me["rateLimit"]["limit"], me["rateLimit"]["remaining"]) == (10, 9)
        assert current.api_key not in str(me)

    @pytest.mark.parametrize("path", ["/me", "/domains/strada.example", "/products/facet-counts"])
    def test_older_generations_have_none_of_it(
        self, client: httpx.Client, interim_client: httpx.Client, path: str
    ) -> None:
        for older in (client, interim_client):
            assert older.get(path).status_code == 404


class TestMoney:
    def test_answers_are_charged_until_the_credit_is_spent(self) -> None:
        with (
            Sandbox(catalogs={"strada": 5}, credit_usd=0.03, generation="seed") as sandbox,
            connect(sandbox) as client,
        ):
            url = search(client).json()["items"][0]["productUrl"]
            answers = [
                search(client, limit=0),
                search(client),
                client.post("/products/lookup", json={"url": url}),
                client.post("/products/lookup", json={"url": url}),
                search(client),
                client.get("/catalogs"),
            ]
        assert [answer.status_code for answer in answers] == [422, 200, 200, 402, 402, 200]
        assert answers[4].json() == {
            "detail": {
                "code": "insufficient_credit",
                "top_up_url": "https://octogen.example/top-up",
                "balance_usd": 0.0,
            }
        }
        assert (sandbox.charged_usd, sandbox.balance_usd) == (0.03, 0.0)

    def test_without_a_limit_charges_are_counted(self, sandbox: Sandbox) -> None:
        with connect(sandbox) as client:
            search(client)
            client.post("/products/lookup", json={"url": "https://nowhere.example/x"})
        assert (sandbox.charged_usd, sandbox.balance_usd) == (0.014, None)


class TestUnknownFields:
    def test_every_response_has_some(self) -> None:
        with Sandbox(catalogs={"strada": 5}, unknown_fields=True, generation="seed") as sandbox:
            sandbox.inject(Fault("price", 9.75))
            with connect(sandbox) as client:
                page = search(client).json()
                (catalog,) = client.get("/catalogs").json()
        assert "addedWithoutNotice" in page
        assert "addedWithoutNotice" in catalog
        assert all("addedWithoutNotice" in item for item in page["items"])
        assert 9.75 in {item.get("currentPrice") for item in page["items"]}


class TestPaging:
    def test_later_pages_repeat_the_products_of_page_one(self, client: httpx.Client) -> None:
        first, *later = iter_pages(client, q="outdoor", limit=20)
        repeated = [uuid for page in later for uuid in uuids(page)]
        assert len(repeated) == len(set(repeated)) > 20
        assert set(uuids(first)) < set(repeated)

    @pytest.mark.parametrize("cursor", ["", "nonsense", "💥", "AAAA", "=" * 50])
    def test_a_malformed_cursor_starts_again(self, client: httpx.Client, cursor: str) -> None:
        first = search(client, limit=10).json()
        assert search(client, limit=10, cursor=cursor).json() == first

    @pytest.mark.parametrize(
        "changed", [{"limit": 11}, {"q": "shoes"}, {"catalog": "northpeak"}, {"price_min": 1}]
    )
    def test_a_cursor_with_other_parameters_starts_again(
        self, client: httpx.Client, changed: dict[str, Any]
    ) -> None:
        cursor = search(client, limit=10).json()["nextCursor"]
        body = {"limit": 10, **changed}
        assert search(client, **body, cursor=cursor).json() == search(client, **body).json()

    def test_a_cursor_belongs_to_its_diversity(self, current_client: httpx.Client) -> None:
        first = search(current_client, limit=10, diversity=True).json()
        cursor = first["nextCursor"]
        second = search(current_client, limit=10, diversity=True, cursor=cursor).json()
        assert second["items"] != first["items"]
        assert search(current_client, limit=10, cursor=cursor).json()["items"] == first["items"]

    def test_the_same_cursor_gives_the_same_page(self, client: httpx.Client) -> None:
        cursor = search(client, limit=10).json()["nextCursor"]
        second = search(client, limit=10, cursor=cursor).json()
        assert search(client, limit=10, cursor=cursor).json() == second
        assert second != search(client, limit=10).json()

    def test_a_cursor_outlives_a_restart_of_the_same_sandbox(self, client: httpx.Client) -> None:
        page = search(client, limit=10).json()
        expected = search(client, limit=10, cursor=page["nextCursor"]).json()
        with (
            Sandbox(catalogs={"northpeak": 120, "strada": 30}, generation="seed") as again,
            connect(again) as other,
        ):
            assert search(other, limit=10, cursor=page["nextCursor"]).json() == expected
        with (
            Sandbox(catalogs={"northpeak": 120}, seed=2, generation="seed") as stale,
            connect(stale) as other,
        ):
            restarted = search(other, limit=10, cursor=page["nextCursor"]).json()
            assert restarted == search(other, limit=10).json()


class TestLookup:
    @pytest.mark.parametrize("generation", ["client", "interim_client", "current_client"])
    def test_a_product_is_found_by_its_url(
        self, request: pytest.FixtureRequest, generation: str
    ) -> None:
        client = request.getfixturevalue(generation)
        for item in search(client, limit=100).json()["items"]:
            found = client.post("/products/lookup", json={"url": item["productUrl"]}).json()
            product = found["product"]
            envelope = {"catalogKey", "catalogDisplayName", "sourceBaseUrl", "product"}
            assert found.keys() >= envelope
            assert generation == "current_client" or found.keys() == envelope
            shared = item.keys() & product.keys() - {"colors", "sizes"}
            assert shared >= {"uuid", "productUrl"}
            assert {name: product[name] for name in shared} == {name: item[name] for name in shared}

    def test_the_nested_parts_have_the_fields_of_the_contract(self, client: httpx.Client) -> None:
        with (
            Sandbox(catalogs={"harbor-and-pine": 200}, generation="seed") as sandbox,
            connect(sandbox) as client,
        ):
            products = [
                client.post("/products/lookup", json={"url": item["productUrl"]}).json()["product"]
                for page in iter_pages(client, limit=100)
                for item in page
            ]
        assert set().union(*products) == _FULL_VIEW_FIELDS | _LIST_ITEM_FIELDS | {"currency"}
        for name, fields in {
            "categories": {"name", "url"},
            "colors": {"label", "swatchUrl", "hexCode"},
            "variants": {"sku", "productUrl", "color", "size", "inStock", "imageUrl"},
            "breadcrumbs": {"name", "url"},
            "promotions": {"description", "code", "promotionId"},
            "reviews": {"author", "rating", "body", "publishedAt"},
            "videos": {"url", "thumbnailUrl", "name"},
        }.items():
            parts = [part for product in products for part in product.get(name, ())]
            assert set().union(*parts) == fields, name
        for name, fields in {
            "details": {"materials", "fit", "dimensions", "patterns"},
            "audience": {"genders", "ageGroups"},
            "identifiers": {"productId", "gtin", "productGroupId"},
        }.items():
            sent = [part for product in products if (part := product.get(name))]
            assert set().union(*sent) == fields, name

    @pytest.mark.parametrize("url", ["https://www.strada.example/products/x-1", "nonsense"])
    def test_an_unknown_url_is_a_404(self, client: httpx.Client, url: str) -> None:
        response = client.post("/products/lookup", json={"url": url})
        assert response.status_code == 404
        assert response.json() == {"detail": "product_not_found"}

    @pytest.mark.parametrize("body", [{}, {"url": ""}, {"url": "x", "more": 1}])
    def test_a_malformed_lookup_is_a_422(self, client: httpx.Client, body: dict[str, Any]) -> None:
        assert client.post("/products/lookup", json=body).status_code == 422


class TestRateLimit:
    def test_an_empty_bucket_is_a_429_for_every_operation(self, sandbox: Sandbox) -> None:
        sandbox.set_rate_limit(2)
        with connect(sandbox) as client:
            allowed = [client.get("/catalogs"), search(client)]
            refused = [client.get("/catalogs"), search(client)]
        assert [response.status_code for response in allowed] == [200, 200]
        for response in refused:
            assert response.status_code == 429
            assert response.json() == {"detail": "rate_limit_exceeded"}
            assert 1 <= int(response.headers["retry-after"]) <= 30

    def test_the_headers_say_how_much_is_left(self, sandbox: Sandbox) -> None:
        sandbox.set_rate_limit(3)
        before = time.time()
        with connect(sandbox) as client:
            responses = [client.get("/catalogs") for _ in range(4)]
        assert [r.headers["x-ratelimit-limit"] for r in responses] == ["3"] * 4
        assert [r.headers["x-ratelimit-remaining"] for r in responses] == ["2", "1", "0", "0"]
        resets = [int(r.headers["x-ratelimit-reset"]) for r in responses]
        assert resets == sorted(resets)
        assert before < resets[0] < resets[2]

    def test_a_request_with_a_wrong_key_costs_nothing(self, sandbox: Sandbox) -> None:
        sandbox.set_rate_limit(1)
        with connect(sandbox, api_key="octo_live_wrong") as client:
            assert search(client).headers["x-ratelimit-remaining"] == "1"

    def test_every_response_has_the_headers(self, client: httpx.Client) -> None:
        responses = [
            client.get("/catalogs"),
            client.get("/nowhere"),
            search(client, limit=0),
            search(client, catalog="nowhere"),
            client.get("/catalogs", headers={"Authorization": "Bearer wrong"}),
        ]
        assert [r.status_code for r in responses] == [200, 404, 422, 404, 401]
        for response in responses:
            assert response.headers["x-ratelimit-limit"] == "600000"
            assert int(response.headers["x-ratelimit-remaining"]) > 0
            assert int(response.headers["x-ratelimit-reset"]) > 0
        assert len({response.headers["x-request-id"] for response in responses}) == 5
