import pickle
from decimal import Decimal
from typing import Any

import dagster as dg
import pytest

from octogen_dagster.errors import MissingAPIKeyError, OctogenBudgetError
from octogen_dagster.frames.scan import scan_products
from octogen_dagster.frames.search import ProductSearch
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.snapshots.resource import OctogenResource


def test_the_synchronous_methods_return_results(shops: Sandbox, octogen: OctogenResource) -> None:
    assert [summary.catalog for summary in octogen.list_catalogs()] == ["northpeak", "strada"]
    page = octogen.search_products(catalog="strada", limit=3)
    assert len(page.items) == 3
    found = octogen.lookup_product(page.items[0].product_url)
    assert found.product.uuid == page.items[0].uuid
    assert octogen.scan(ProductSearch(catalogs=["strada"])).frame.collect().height == 120


async def test_both_kinds_of_methods_work_inside_an_event_loop(
    shops: Sandbox, octogen: OctogenResource
) -> None:
    assert len(octogen.list_catalogs()) == 2
    async with octogen.client() as client:
        assert len(await client.list_catalogs()) == 2


def test_the_key_comes_from_the_environment_when_the_step_runs(
    shops: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    octogen = OctogenResource(base_url=shops.base_url)
    with pytest.raises(MissingAPIKeyError, match=r"OCTO_API_KEY.*octogen-dagster sandbox"):
        octogen.list_catalogs()
    monkeypatch.setenv("OCTO_API_KEY", shops.api_key)
    assert len(octogen.list_catalogs()) == 2


def test_the_base_url_comes_from_the_environment(
    shops: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in shops.environment.items():
        monkeypatch.setenv(name, value)
    assert len(OctogenResource().list_catalogs()) == 2
    assert scan_products(ProductSearch(catalogs=["strada"])).collect().height == 120


def test_the_settings_may_be_dagster_environment_variables(
    shops: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dg.asset
    def count(octogen: OctogenResource) -> int:
        return len(octogen.list_catalogs())

    monkeypatch.setenv("MY_KEY", shops.api_key)
    monkeypatch.setenv("MY_URL", shops.base_url)
    octogen = OctogenResource(api_key=dg.EnvVar("MY_KEY"), base_url=dg.EnvVar("MY_URL"))
    result = dg.materialize([count], resources={"octogen": octogen})
    assert result.output_for_node("count") == 2


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"base_url": "api.octogen.ai/v1"}, "needs a scheme and a host"),
        ({"base_url": "http://api.octogen.ai/v1"}, "over plain http: use https"),
        ({"concurrency": 0}, "concurrency"),
        ({"reserve": 1.0}, "reserve"),
        ({"attempts": 0}, "attempts"),
        ({"timeout": 0.0}, "timeout"),
        ({"search_page_usd": -1.0}, "search_page_usd"),
        ({"lookup_usd": -1.0}, "lookup_usd"),
        ({"budget_usd": 0.0}, "budget_usd"),
    ],
)
def test_a_wrong_setting_is_an_error_when_the_code_loads(
    settings: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        OctogenResource(**settings)


def test_everything_that_a_resource_requests_has_one_budget(shops: Sandbox) -> None:
    octogen = OctogenResource(
        api_key=shops.api_key,
        base_url=shops.base_url,
        search_page_usd=1.0,
        lookup_usd=0.5,
        budget_usd=2.5,
    )
    url = octogen.search_products(catalog="strada").items[0].product_url
    octogen.lookup_product(url)
    octogen.scan(ProductSearch(catalogs=["strada"], max_products=1)).frame.collect()
    with pytest.raises(OctogenBudgetError, match=r"budget of \$2\.50 .*: \$2\.50 are spent\. It"):
        octogen.lookup_product(url)
    assert octogen.spending.spent_usd == Decimal("2.5")


def test_the_key_is_shown_nowhere() -> None:
    octogen = OctogenResource(api_key="octo_live_secret_secret")
    connection = octogen.connection()
    assert b"secret_secret" not in pickle.dumps(octogen)
    assert pickle.loads(pickle.dumps(OctogenResource(attempts=3))).attempts == 3
    for shown in (repr(octogen), str(octogen), repr(connection), repr(octogen.client())):
        assert "secret_secret" not in shown
    assert b"secret_secret" not in pickle.dumps(octogen.scan(ProductSearch()))
