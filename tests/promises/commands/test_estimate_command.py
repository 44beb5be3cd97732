"""`estimate` says what a read costs, and pays for nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from octogen_dagster.cli.main import main
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import (
    KEY,
    RawServer,
    Received,
    catalog_of_shop,
    counted,
    http,
    not_covered,
    shop,
    unlisted,
)

CATALOGS = {"acme": 250, "zen": 30}
LOWER_BOUND = (
    "Products without a category are not counted, so this is a lower bound. To count all products "
    "in a shop, pass --host."
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A function that runs the command against a server."""

    def estimate(server: Any, *arguments: str) -> Result:
        monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", server.api_key)
        monkeypatch.setenv("OCTOGEN_BASE_URL", server.base_url)
        result = CliRunner().invoke(main, ["estimate", *arguments])
        assert server.api_key not in result.output
        return result

    return estimate


def today() -> RawServer:
    """A service of today with two shops and a thousand products."""

    def count(request: Received) -> list[bytes]:
        keys = request.json.get("catalogs")
        known = {"acme": 250, "zen": 30}
        products = 1_000 if keys is None else sum(known.get(key, 0) for key in keys)
        return http(200, counted(products // (2 if request.json.get("facets") else 1)))

    answers = {
        "acme.example": shop("acme.example", catalog_of_shop("acme", 250)),
        "zen.example": shop("zen.example", catalog_of_shop("zen", 30)),
        "new.example": shop("new.example", catalog_of_shop("new", productCount=None)),
        "gone.example": not_covered(),
        "empty.example": shop("empty.example"),
    }
    return unlisted(count, answers, path="/products/facet-counts")


def test_a_shop_of_today(run: Callable[..., Result]) -> None:
    with today() as server:
        result = run(server, "--host", "acme.example")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "      products  pages   cost  with details",
        "acme       250      3  $0.04         $0.54",
    ]


def test_several_shops_of_which_one_is_not_covered(run: Callable[..., Result]) -> None:
    hosts = [f"--host={name}.example" for name in ("acme", "zen", "new", "gone")]
    with today() as server:
        result = run(server, *hosts)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "      products  pages   cost  with details",
        "acme       250      3  $0.04         $0.54",
        "zen         30      1  $0.01         $0.07",
        "new          ?      ?      ?             ?",
        "all        280      4  $0.06         $0.62",
        "new: the number of products is unknown.",
    ]
    assert "gone.example" in result.stderr


@pytest.mark.parametrize("search", [[], ["--facet", "gender=female"], ["--q", "boots"]], ids=str)
def test_a_shop_without_catalogs_is_not_all_of_octogen(
    run: Callable[..., Result], search: list[str]
) -> None:
    with today() as server:
        result = run(server, "--host", "empty.example", *search)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "The shops have no catalogs.\n"
    assert [request.target for request in server.received] == ["/v1/domains/empty.example"]


def test_a_catalog_that_is_named_and_of_a_shop_is_counted_once(run: Callable[..., Result]) -> None:
    with today() as server:
        run(server, "--catalog=acme", "--host=acme.example", "--facet", "gender=female")
    assert server.received[-1].json["catalogs"] == ["acme"]


def test_named_catalogs_of_today_are_counted(run: Callable[..., Result]) -> None:
    with today() as server:
        result = run(server, "--catalog", "acme", "--catalog", "acne")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "      products  pages   cost  with details",
        "acme       250      3  $0.04         $0.54",
        "acne         0      0  $0.00         $0.00",
        "all        250      3  $0.04         $0.54",
        "acne: no products were found. Check the spelling and the filters.",
        LOWER_BOUND,
    ]


def test_a_shop_says_more_of_its_catalog_than_a_count(run: Callable[..., Result]) -> None:
    with today() as server:
        result = run(server, "--catalog=acme", "--catalog=zen", "--host=acme.example")
    assert result.stdout.splitlines() == [
        "      products  pages   cost  with details",
        "acme       250      3  $0.04         $0.54",
        "zen         30      1  $0.01         $0.07",
        "all        280      4  $0.06         $0.62",
        LOWER_BOUND,
    ]
    counted_keys = [each.json["catalogs"] for each in server.received if each.method == "POST"]
    assert counted_keys == [["zen"]]


def test_all_of_octogen(run: Callable[..., Result]) -> None:
    with today() as server:
        result = run(server)
    assert "all of Octogen     1,000     10  $0.14         $2.14" in result.stdout.splitlines()


def test_a_search_is_counted_and_keywords_do_not_narrow_it(run: Callable[..., Result]) -> None:
    facets = ["--facet", "gender=female", "--facet", "gender=unisex", "--facet", "fit=slim"]
    with today() as server:
        result = run(server, "--catalog=zen", "--host=acme.example", "--q=boots", *facets)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "            products  pages   cost  with details",
        "the search       140      2  $0.03         $0.31",
        "The estimate ignores the search keywords and counts only products that have a category. "
        "The actual cost can be higher or lower.",
    ]
    assert server.received[-1].json == {
        "catalogs": ["zen", "acme"],
        "facets": [
            {"name": "gender", "values": ["female", "unisex"]},
            {"name": "fit", "values": ["slim"]},
        ],
        "facet_names": ["category_path.depth_0"],
        "value_limit": 1000,
    }


def test_an_older_service_lists_its_catalogs(run: Callable[..., Result]) -> None:
    with Sandbox(catalogs=CATALOGS, api_key=KEY, generation="seed") as sandbox:
        everything = run(sandbox)
        one = run(sandbox, "--catalog", "acme")
        assert {request.path for request in sandbox.requests} == {"/catalogs"}
    assert everything.stdout.splitlines() == [
        "      products  pages   cost  with details",
        "acme       250      3  $0.04         $0.54",
        "zen         30      1  $0.01         $0.07",
        "all        280      4  $0.06         $0.62",
        "Pages: all within the rate limit of 600,000 requests per minute.",
    ]
    assert one.stdout.splitlines()[1:-1] == ["acme       250      3  $0.04         $0.54"]


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (
            ["--catalog", "nosuch"],
            2,
            "'nosuch' is not granted to the API key. Granted catalogs: acme, zen.",
        ),
        (["--facet", "gender=male"], 1, "only whole catalogs can be counted. Remove the filters."),
        (["--price-min", "-1"], 2, "--price-min"),
        (["--host", "acme.example"], 1, "does not support shop lookups (404)"),
    ],
)
def test_what_cannot_be_estimated_says_why(
    run: Callable[..., Result], arguments: list[str], status: int, text: str
) -> None:
    with Sandbox(catalogs=CATALOGS, api_key=KEY, generation="seed") as sandbox:
        result = run(sandbox, *arguments)
    assert (result.exit_code, result.stdout) == (status, "")
    assert text in result.stderr


def test_a_refused_key_is_an_error(run: Callable[..., Result]) -> None:
    with RawServer(lambda _: http(401, {"detail": "Invalid API key"})) as server:
        result = run(server)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "401 Invalid API key" in result.stderr


def test_without_a_key_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OCTOGEN_PLATFORM_API_KEY", raising=False)
    monkeypatch.delenv("OCTO_API_KEY", raising=False)
    result = CliRunner().invoke(main, ["estimate"])
    assert result.exit_code == 1
    assert "No Octogen API key" in result.stderr


def test_a_facet_name_close_to_a_known_one_is_a_warning(run: Callable[..., Result]) -> None:
    with today() as server:
        result = run(server, "--facet", "sex=female")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "Facet 'sex' filters by a product attribute with this name. Did you mean 'gender'?"
    ]
