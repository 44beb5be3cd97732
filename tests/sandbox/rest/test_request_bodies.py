"""Request bodies that each generation of the contract refuses, with their error details."""

from typing import Any

import httpx
import pytest

from tests.sandbox.calls import search


def _facets(count: int) -> list[dict[str, Any]]:
    return [{"name": "fit", "values": ["x"]}] * count


_REFUSED = [
    ({"limit": 0}, ["body", "limit"], "greater_than_equal"),
    ({"limit": 101}, ["body", "limit"], "less_than_equal"),
    ({"limit": "many"}, ["body", "limit"], "int_parsing"),
    ({"price_min": 2, "price_max": 1}, ["body", "price_max"], "value_error"),
    ({"price_min": "cheap"}, ["body", "price_min"], "float_parsing"),
    ({"facets": _facets(51)}, ["body", "facets"], "too_long"),
    ({"facets": [{"name": "fit", "values": []}]}, ["body", "facets", 0, "values"], "too_short"),
    ({"facets": [{"name": "fit"}]}, ["body", "facets", 0, "values"], "missing"),
    (
        {"facets": [{"name": "", "values": ["x"]}]},
        ["body", "facets", 0, "name"],
        "string_too_short",
    ),
    ({"colour": "red"}, ["body", "colour"], "extra_forbidden"),
    ({"q": 5}, ["body", "q"], "string_type"),
]


_FIT = [{"name": "fit", "values": ["slim"]}]

_REFUSED_BY_CURRENT = [
    ({"facets": [{"name": "sex", "values": ["x"]}]}, ["body", "facets", 0, "name"], "sex"),
    (
        {"exclude_facets": [{"name": "category_path.depth_7", "values": ["x"]}]},
        ["body", "exclude_facets", 0, "name"],
        "depth_7",
    ),
    ({"exclude_facets": _FIT * 2}, ["body", "exclude_facets"], "fit is listed more than once"),
    ({"understand": False}, ["body", "understand"], "requires q"),
    ({"understand": False, "q": " "}, ["body", "understand"], "requires q"),
    ({"omit_generated_facets": ["fit"]}, ["body", "omit_generated_facets"], "understood q"),
    ({"fallback_category": ["electronics"]}, ["body", "fallback_category"], "understood q"),
    ({"relax": True, "q": "tent", "understand": False}, ["body", "relax"], "understood q"),
    (
        {"q": "tent", "facets": _FIT, "omit_generated_facets": ["fit"]},
        ["body", "omit_generated_facets"],
        "fit is in facets as well",
    ),
    (
        {"q": "tent", "fallback_category": ["electronics", "tents"]},
        ["body", "fallback_category"],
        "does not exist",
    ),
    ({"q": "tent", "fallback_category": []}, ["body", "fallback_category"], "at least 1"),
    ({"q": "tent", "fallback_category": ["x"] * 5}, ["body", "fallback_category"], "at most 4"),
    ({"brand_quality_min": 0.5}, ["body", "brand_quality_min"], "equal to 1"),
    ({"brand_quality_max": 7}, ["body", "brand_quality_max"], "equal to 6"),
    (
        {"brand_quality_min": 3, "brand_quality_max": 2},
        ["body", "brand_quality_max"],
        "must not exceed",
    ),
    ({"similar_to_brands": []}, ["body", "similar_to_brands"], "at least 1"),
    ({"similar_to_brands": ["x"] * 11}, ["body", "similar_to_brands"], "at most 10"),
]

_NEWER_FIELDS: dict[str, Any] = {
    "q": "tent",
    "understand": True,
    "exclude_facets": _FIT,
    "omit_generated_facets": ["gender"],
    "fallback_category": ["Electronics"],
    "brand_quality_min": 1,
    "brand_quality_max": 6,
    "similar_to_brands": ["Acme"],
    "relax": True,
    "diversity": True,
    "debug": True,
}


class TestRefusedBodies:
    @pytest.mark.parametrize(("body", "loc", "kind"), _REFUSED)
    @pytest.mark.parametrize("generation", ["client", "current_client"])
    def test_both_generations_refuse_an_invalid_body(
        self,
        request: pytest.FixtureRequest,
        generation: str,
        body: dict[str, Any],
        loc: list[Any],
        kind: str,
    ) -> None:
        response = search(request.getfixturevalue(generation), **body)
        assert response.status_code == 422
        (problem,) = response.json()["detail"]
        assert (problem["loc"], problem["type"]) == (loc, kind)
        assert problem["msg"]
        assert "input" in problem

    def test_the_seed_generation_refuses_catalogs(self, client: httpx.Client) -> None:
        (problem,) = search(client, catalogs=["strada"]).json()["detail"]
        assert (problem["loc"], problem["type"]) == (["body", "catalogs"], "extra_forbidden")

    def test_the_seed_generation_refuses_an_empty_catalog(self, client: httpx.Client) -> None:
        (problem,) = search(client, catalog="").json()["detail"]
        assert (problem["loc"], problem["type"]) == (["body", "catalog"], "string_too_short")

    def test_the_current_generation_refuses_catalog(self, current_client: httpx.Client) -> None:
        response = search(current_client, catalog="strada")
        assert response.status_code == 422
        (problem,) = response.json()["detail"]
        assert problem == {
            "loc": ["body", "catalog"],
            "type": "extra_forbidden",
            "msg": "Extra inputs are not permitted",
            "input": "strada",
        }

    @pytest.mark.parametrize(("keys", "kind"), [([], "too_short"), (["x"] * 501, "too_long")])
    def test_the_current_generation_takes_1_to_500_catalogs(
        self, current_client: httpx.Client, keys: list[str], kind: str
    ) -> None:
        (problem,) = search(current_client, catalogs=keys).json()["detail"]
        assert (problem["loc"], problem["type"]) == (["body", "catalogs"], kind)

    @pytest.mark.parametrize(("body", "loc", "text"), _REFUSED_BY_CURRENT)
    def test_the_current_generation_refuses_what_cannot_be_understood(
        self, current_client: httpx.Client, body: dict[str, Any], loc: list[Any], text: str
    ) -> None:
        response = search(current_client, **body)
        assert response.status_code == 422
        (problem,) = response.json()["detail"]
        assert problem["loc"] == loc
        assert text in problem["msg"]

    def test_the_newer_fields_belong_to_the_current_generation(
        self, client: httpx.Client, interim_client: httpx.Client, current_client: httpx.Client
    ) -> None:
        assert search(current_client, **_NEWER_FIELDS).status_code == 200
        for older in (client, interim_client):
            problems = search(older, **_NEWER_FIELDS).json()["detail"]
            named = {problem["loc"][1] for problem in problems}
            assert named == _NEWER_FIELDS.keys() - {"q"}

    @pytest.mark.parametrize("field", ["matchMode", "resolutionMode", "format"])
    def test_the_newer_fields_of_a_lookup_as_well(
        self, client: httpx.Client, interim_client: httpx.Client, field: str
    ) -> None:
        for older in (client, interim_client):
            response = older.post("/products/lookup", json={"url": "https://x.example/", field: ""})
            (problem,) = response.json()["detail"]
            assert (problem["loc"], problem["type"]) == (["body", field], "extra_forbidden")

    def test_counts_are_always_understood(self, current_client: httpx.Client) -> None:
        body = {"q": "tent", "understand": True}
        (problem,) = current_client.post("/products/facet-counts", json=body).json()["detail"]
        assert (problem["loc"], problem["type"]) == (["body", "understand"], "extra_forbidden")

    def test_only_the_current_generation_refuses_a_facet_twice(
        self, client: httpx.Client, current_client: httpx.Client
    ) -> None:
        twice = [
            {"name": "gender", "values": ["male", "female"]},
            {"name": "gender", "values": ["male"]},
        ]
        (problem,) = search(current_client, facets=twice).json()["detail"]
        assert problem["loc"] == ["body", "facets"]
        assert "gender" in problem["msg"]
        found = search(client, facets=twice).json()
        assert found == search(client, facets=twice[1:]).json() != search(client).json()

    @pytest.mark.parametrize(
        "content", [b"", b"{", b"\xff", b"[" * 5000, b'{"price_min": NaN}', b'{"q": "\\ud800"}']
    )
    def test_a_body_that_is_not_json_is_refused(self, client: httpx.Client, content: bytes) -> None:
        response = client.post("/products/search", content=content)
        assert response.status_code == 422
        assert response.json()["detail"][0]["type"] == "json_invalid"

    def test_a_body_that_is_not_an_object_is_refused(self, client: httpx.Client) -> None:
        response = client.post("/products/search", json=["q"])
        assert response.status_code == 422
        assert response.json()["detail"][0]["loc"] == ["body"]
