"""The resource: its methods, its settings, its budget, and the source of catalogs in runs."""

import pickle
import subprocess
import sys
from decimal import Decimal
from typing import Any

import dagster as dg
import pytest

from octogen_dagster import CatalogSource, OctogenResource, ProductSearch, ShopCatalogs
from octogen_dagster.errors import MissingAPIKeyError, OctogenBudgetError
from octogen_dagster.sandbox.server import Sandbox
from tests.api.leaks import chain
from tests.api.servers import KEY, RawServer, http, page
from tests.results import octogen_at


def test_the_key_comes_from_the_environment_when_the_step_runs(
    shops: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ShopCatalogs(hosts=shops.hosts)
    octogen = OctogenResource(base_url=shops.base_url, catalog_source=source)
    with pytest.raises(MissingAPIKeyError, match=r"OCTO_API_KEY.*octogen-dagster sandbox"):
        octogen.list_catalogs()
    monkeypatch.setenv("OCTO_API_KEY", shops.api_key)
    assert len(octogen.list_catalogs()) == 2


def test_the_first_key_variable_that_is_set_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["OCTO_API_KEY", "OCTOGEN_PLATFORM_API_KEY", "STOREROUTER_API_KEY"]
    with RawServer(lambda _: http(200, page(["a"]))) as server:
        for name in names:
            monkeypatch.setenv(name, f"octo_live_{name}")
            OctogenResource(base_url=server.base_url).search_products(q="dress")
    sent = [request.headers["authorization"] for request in server.received]
    assert sent == [f"Bearer octo_live_{name}" for name in names]


def test_the_settings_may_be_dagster_environment_variables(
    shops: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dg.asset
    def count(octogen: OctogenResource) -> int:
        return len(octogen.list_catalogs())

    monkeypatch.setenv("MY_KEY", shops.api_key)
    monkeypatch.setenv("MY_URL", shops.base_url)
    octogen = OctogenResource(
        api_key=dg.EnvVar("MY_KEY"),
        base_url=dg.EnvVar("MY_URL"),
        catalog_source=ShopCatalogs(hosts=shops.hosts),
    )
    result = dg.materialize([count], resources={"octogen": octogen})
    assert result.output_for_node("count") == 2


def test_everything_that_a_resource_requests_has_one_budget(shops: Sandbox) -> None:
    octogen = octogen_at(shops, search_page_usd=1.0, lookup_usd=0.5, budget_usd=2.5)
    url = octogen.search_products(catalog="strada").items[0].product_url
    octogen.lookup_product(url)
    octogen.scan(ProductSearch(catalogs=["strada"], max_products=1)).frame.collect()
    with pytest.raises(OctogenBudgetError, match=r"budget of \$2\.50 \(\$2\.50 spent\)\. It"):
        octogen.lookup_product(url)
    assert octogen.spending.spent_usd == Decimal("2.5")


def test_the_key_is_shown_nowhere() -> None:
    octogen = OctogenResource(api_key="octo_live_secret_secret")
    service = octogen.service()
    assert b"secret_secret" not in pickle.dumps(octogen)
    assert pickle.loads(pickle.dumps(OctogenResource(attempts=3))).attempts == 3
    for shown in (repr(octogen), str(octogen), repr(service), repr(octogen.client())):
        assert "secret_secret" not in shown
    assert b"secret_secret" not in pickle.dumps(octogen.scan(ProductSearch()).frame)


@dg.asset
def source(octogen: OctogenResource) -> CatalogSource:
    return octogen.service().catalog_source


class TestKeyInAWrongPlace:
    @pytest.mark.parametrize("base_url", [KEY, "https://octogen.example/a-key-of-a-proxy"])
    def test_one_from_the_environment_is_not_quoted_by_a_run(
        self, monkeypatch: pytest.MonkeyPatch, base_url: str
    ) -> None:
        monkeypatch.setenv("MY_URL", base_url)
        monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", base_url.rpartition("/")[2])
        resources = {"octogen": OctogenResource(base_url=dg.EnvVar("MY_URL"))}
        with pytest.raises(dg.DagsterError) as caught:
            dg.materialize([source], resources=resources)
        texts = [str(error) for error in chain(caught.value)]
        assert any("base_url contains an API key" in text for text in texts)
        assert not any(base_url in text for text in texts)


SHOPS = ShopCatalogs(hosts=["acme.example", "zen.example"])


def test_a_source_reaches_runs_beside_settings_from_the_environment_and_the_launchpad(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    for octogen, run_config in (
        (OctogenResource(api_key=dg.EnvVar("MY_KEY"), catalog_source=SHOPS), None),
        (OctogenResource(catalog_source=SHOPS), {"api_key": KEY, "reserved_percent": 10}),
        (OctogenResource.configure_at_launch(catalog_source=SHOPS), {"api_key": KEY}),
    ):
        defs = dg.Definitions(assets=[source], resources={"octogen": octogen})
        dg.Definitions.validate_loadable(defs)
        job = defs.resolve_implicit_global_asset_job_def()
        config = {"resources": {"octogen": {"config": run_config}}}
        result = job.execute_in_process(run_config=config if run_config else None)
        assert result.output_for_node("source") == SHOPS


def test_a_source_reaches_a_sensor_that_the_daemon_evaluates(instance: dg.DagsterInstance) -> None:
    @dg.sensor(target=[source])
    def sensor(context: dg.SensorEvaluationContext, octogen: OctogenResource) -> dg.SkipReason:
        return dg.SkipReason(repr(octogen.service().catalog_source))

    octogen = OctogenResource(api_key=KEY, catalog_source=SHOPS)
    defs = dg.Definitions(assets=[source], sensors=[sensor], resources={"octogen": octogen})
    resources = defs.get_repository_def().get_top_level_resources()
    with dg.build_sensor_context(instance=instance, resources=dict(resources)) as context:
        skipped = defs.resolve_sensor_def("sensor").evaluate_tick(context).skip_message
    assert skipped == repr(SHOPS)


# A mistyped setting is an error, and a key that is written out is warned of.


WARNINGS = """
import os
import sys
import warnings

import dagster as dg

from octogen_dagster import OctogenResource
from octogen_dagster.sandbox.server import Sandbox

key = sys.argv[1]
os.environ["MY_KEY"] = key


@dg.asset
def reads(octogen: OctogenResource) -> None:
    assert octogen.api_key == key


def told() -> int:
    return sum("hard-coded" in str(each.message) for each in caught)


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    dg.materialize([reads], resources={"octogen": OctogenResource(api_key=dg.EnvVar("MY_KEY"))})
    OctogenResource(api_key=Sandbox(generation="seed").api_key)
    print(told())
    del os.environ["MY_KEY"]
    OctogenResource(api_key=key)
    OctogenResource(api_key=key, concurrency=2)
    print(told())
    assert not any(key in str(each.message) for each in caught)
"""


@pytest.mark.long
def test_a_key_that_is_written_out_is_warned_of_once() -> None:
    command = [sys.executable, "-c", WARNINGS, KEY]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "1"]


@pytest.mark.parametrize("setting", ["reserved_percent", "max_extra_pages_percent"])
def test_a_share_in_place_of_percent_is_warned_of_when_the_resource_is_made(setting: str) -> None:
    settings: Any = {setting: 0.2}
    with pytest.warns(UserWarning, match=rf"^{setting} is 0\.2 %\. If you mean 20 %, write 20\."):
        OctogenResource(**settings)
