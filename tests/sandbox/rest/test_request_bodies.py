"""Request bodies that each generation of the contract refuses, with their error details."""

from typing import Any

import httpx
import pytest

from tests.sandbox.calls import search


def _facets(count: int) -> list[dict[str, Any]]:
    return [{"name": f"attribute_facets.a{number}", "values": ["x"]} for number in range(count)]


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
