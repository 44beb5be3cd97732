"""The sandbox of a test: its address, its life, its log, and what can be changed while it runs."""

from __future__ import annotations

import logging
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import grpc
import httpx
import polars as pl
import pytest
from click.testing import CliRunner
from google.cloud import bigquery_analyticshub_v1 as ah

import octogen_dagster as od
from octogen_dagster.api.credentials import API_KEY_VARIABLES
from octogen_dagster.bigquery.partitions import listing_partition_key
from octogen_dagster.cli.main import main
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.promises.sandbox.sandbox_calls import all_items, connect, look_up, search

pytest_plugins = ["pytester"]

SERVER_THREAD = "octogen-sandbox"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(catalogs={"northpeak": 120, "strada": 30}, generation="seed") as running:
        yield running


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with connect(sandbox) as connected:
        yield connected


def product_counts(client: httpx.Client) -> dict[str, int]:
    return {entry["catalog"]: entry["productCount"] for entry in client.get("/catalogs").json()}


def test_a_catalog_appears_grows_and_goes_away(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.grant("voltaic", products=7)
    sandbox.grant("kumo")
    expected = {"northpeak": 120, "strada": 30, "voltaic": 7, "kumo": 250}
    assert product_counts(client) == expected
    sandbox.grant("voltaic", products=8)
    items = search(client, catalog="voltaic").json()["items"]
    assert len(items) == 8
    sandbox.revoke("voltaic")
    assert search(client, catalog="voltaic").status_code == 404
    assert look_up(client, items[0]["productUrl"]).status_code == 404
    assert "voltaic" not in product_counts(client)


def test_a_day_moves_prices_and_stock_and_brings_and_takes_products() -> None:
    with Sandbox(catalogs={"strada": 400}) as sandbox, connect(sandbox) as client:
        first = {item["uuid"]: item for item in all_items(client)}
        sandbox.next_day()
        second = {item["uuid"]: item for item in all_items(client)}
        sandbox.set_price(url := min(item["productUrl"] for item in second.values()), 8_995.0)
        sandbox.next_day()
        third = {item["productUrl"]: item for item in all_items(client)}
    assert third[url]["currentPrice"] == 8_995.0
    assert len(second.keys() - first.keys()) == 8
    assert 1 <= len(first.keys() - second.keys()) <= 8
    both = [(first[each], second[each]) for each in first.keys() & second.keys()]
    assert all(one.get("title") == other.get("title") for one, other in both)
    for name, few, many in (("currentPrice", 8, 40), ("inStock", 3, 20)):
        moved = sum(one.get(name) != other.get(name) for one, other in both)
        assert few <= moved <= many, name


def test_it_can_begin_on_a_later_day() -> None:
    with Sandbox(catalogs={"strada": 400}) as sandbox, connect(sandbox) as client:
        for _ in range(2):
            sandbox.next_day()
        third = all_items(client)
    with Sandbox(catalogs={"strada": 400}, day=3) as sandbox, connect(sandbox) as client:
        assert all_items(client) == third


@pytest.mark.long
def test_two_processes_make_the_same_products_and_another_seed_other_ones() -> None:
    program = """
import httpx
from octogen_dagster.sandbox.server import Sandbox

for seed in (7, 8):
    with Sandbox(catalogs={"grand-arcade": 10_000}, seed=seed) as sandbox:
        sandbox.next_day()
        headers = {"Authorization": f"Bearer {sandbox.api_key}"}
        page = httpx.post(f"{sandbox.base_url}/products/search", json={}, headers=headers)
    print(page.json()["items"])
"""
    first, second = (
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONUTF8": "1"},
            capture_output=True,
            check=True,
        ).stdout.splitlines()
        for hash_seed in ("1", "2")
    )
    assert first == second
    assert first[0] != first[1]


def test_it_is_on_loopback_and_in_the_environment(sandbox: Sandbox) -> None:
    assert sandbox.base_url.startswith("http://127.0.0.1:")
    assert sandbox.base_url.endswith("/v1")
    assert sandbox.environment == {
        **dict.fromkeys(API_KEY_VARIABLES, sandbox.api_key),
        "OCTOGEN_BASE_URL": sandbox.base_url,
    }


def test_nothing_is_left_when_it_ends_and_it_can_run_again() -> None:
    sandbox = Sandbox(catalogs=1, api_key="octo_live_mine")
    for _ in range(2):
        with sandbox, connect(sandbox, api_key="octo_live_mine") as client:
            assert search(client).status_code == 200
            assert SERVER_THREAD in {thread.name for thread in threading.enumerate()}
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{sandbox.base_url}/me")
        assert SERVER_THREAD not in {thread.name for thread in threading.enumerate()}


_SERVE = """
from octogen_dagster.sandbox.server import serve
serve(catalogs=1, port=0, announce=lambda sandbox: print(*sandbox.environment.values(), flush=True))
print("ended", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code", "last_words"),
    [(signal.SIGINT, 0, "ended\n"), (signal.SIGTERM, -signal.SIGTERM, "")],
)
def test_it_serves_in_the_foreground_until_a_signal(
    sent: signal.Signals, code: int, last_words: str
) -> None:
    with subprocess.Popen([sys.executable, "-c", _SERVE], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        key, *_, base_url, host = run.stdout.readline().split()
        headers = {"Authorization": f"Bearer {key}"}
        transport = httpx.HTTPTransport(retries=10)
        with httpx.Client(headers=headers, transport=transport, timeout=30) as client:
            assert client.get(f"{base_url}/domains/{host}").status_code == 200
        os.kill(run.pid, sent)
        rest, _ = run.communicate(timeout=30)
    assert (run.returncode, rest) == (code, last_words)


_SOMEBODY_ELSES_TEST = """
import os
import httpx

pytest_plugins = ["octogen_dagster.sandbox.testing"]


def test_pipeline(octogen_sandbox):
    assert octogen_sandbox.requests == []
    headers = {"Authorization": "Bearer " + os.environ["OCTO_API_KEY"]}
    for host in os.environ["OCTOGEN_SHOP_HOSTS"].split(","):
        url = os.environ["OCTOGEN_BASE_URL"] + "/domains/" + host
        (catalog,) = httpx.get(url, headers=headers).json()["catalogs"]
        assert catalog["productCount"] == 40
    assert len(octogen_sandbox.requests) == 3


def test_the_environment_is_restored():
    assert os.environ["OCTOGEN_PLATFORM_API_KEY"] == "a real one"
    assert not {"OCTOGEN_BASE_URL", "OCTOGEN_SHOP_HOSTS"} & set(os.environ)
"""


@pytest.mark.long
def test_the_fixture_serves_and_cleans_up(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", "a real one")
    monkeypatch.delenv("OCTOGEN_BASE_URL", raising=False)
    monkeypatch.delenv("OCTOGEN_SHOP_HOSTS", raising=False)
    pytester.makepyfile(_SOMEBODY_ELSES_TEST)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


@pytest.mark.slow
def test_a_grant_is_revoked_and_given_again(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = od.build_linked_datasets_asset(grant_waits=(), retry_policy=None)
    (checks,) = od.build_linked_datasets_checks(datasets, od.OctogenSource())
    with Sandbox(catalogs=0, hub=True) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        hub = sandbox.hub
        key = listing_partition_key(hub.share("northpeak"))
        instance.add_dynamic_partitions("octogen_listings", [key])
        resources = {
            "analytics_hub": od.AnalyticsHubResource(project="my-project"),
            "octogen_control_plane": od.OctogenControlPlaneResource(principal="user:me@my.org"),
        }

        def link() -> dict[str, str]:
            dg.materialize(
                [datasets],
                resources=resources,
                instance=instance,
                partition_key=key,
                raise_on_error=False,
            )
            return hub.datasets("my-project")

        def lapsed() -> object:
            done = dg.materialize(
                [checks],
                resources=resources,
                instance=instance,
                selection=dg.AssetSelection.checks(checks),
            )
            (check,) = done.get_asset_check_evaluations()
            sample = check.metadata.get("octogen/sample")
            return sample and sample.value

        first = link()
        assert lapsed() is None
        hub.revoke_access("northpeak")
        assert lapsed() == {key: "revoked"}
        assert hub.datasets("my-project") == first, "the id stays taken"
        hub.grant_access("northpeak")
        assert link() == first, "a run deletes nothing"
        delete_subscription(sandbox.environment["ANALYTICS_HUB_EMULATOR_HOST"], "my-project")
        second = link()
        assert second.keys() == first.keys()
        assert second != first
        assert lapsed() is None
        with pytest.raises(LookupError, match=r"'kumo' is not shared.*northpeak"):
            hub.grant_access("kumo")


def delete_subscription(endpoint: str, project: str) -> None:
    """Delete a project's only subscription, as its owner does in the console."""
    with grpc.insecure_channel(endpoint) as channel:
        transport = ah.AnalyticsHubServiceClient.get_transport_class("grpc")(channel=channel)
        google = ah.AnalyticsHubServiceClient(transport=transport)
        (found,) = google.list_subscriptions(parent=f"projects/{project}/locations/us")
        google.delete_subscription(name=found.name).result()  # type: ignore[no-untyped-call]


# Every fault of the sandbox, as a client sees it, and as it is written.


def test_a_page_is_counted_within_its_search(sandbox: Sandbox) -> None:
    sandbox.inject(Fault("status", 503, page=2))
    with connect(sandbox) as client:
        first = search(client, limit=10)
        body = {"limit": 10, "cursor": first.json()["nextCursor"]}
        assert [search(client, **body).status_code for _ in range(2)] == [503, 503]
        assert search(client, limit=10).status_code == 200
    assert [request.page for request in sandbox.requests] == [1, 2, 2, 1]


def test_a_fault_chooses_a_catalog() -> None:
    with Sandbox(catalogs={"northpeak": 120, "strada": 30}) as sandbox, connect(sandbox) as client:
        strada = search(client, catalogs=["strada"]).json()["items"][0]["productUrl"]
        northpeak = search(client, catalogs=["northpeak"]).json()["items"][0]["productUrl"]
        sandbox.inject(Fault("status", 503, catalog="strada"))
        searches = (["northpeak"], ["northpeak", "strada"], ["strada"])
        answers = [search(client, catalogs=keys) for keys in searches]
        answers += [look_up(client, url) for url in (northpeak, strada)]
        assert [answer.status_code for answer in answers] == [200, 503, 503, 200, 503]
        everything = search(client)  # it names none
        assert everything.status_code == 200


def test_cut_closes_the_connection_in_the_middle_of_the_body(
    sandbox: Sandbox, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.inject(Fault("cut", times=1))
    received: list[bytes] = []
    with client.stream("POST", "/products/search", json={}) as response:
        whole = int(response.headers["content-length"])
        with pytest.raises(httpx.RemoteProtocolError):
            received.extend(response.iter_raw())
    assert 0 < sum(map(len, received)) < whole
    assert len(search(client).json()["items"]) == 50
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("latency=0.25", Fault("latency", 0.25)),
        (
            "status=503,times=3,path=/products/search,page=2,retry_after=7",
            Fault("status", 503, times=3, path="/products/search", page=2, retry_after=7),
        ),
        (
            "times=1,status=429,retry_after=Wed, 21 Oct 2026 07:28:00 GMT",
            Fault("status", 429, times=1, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"),
        ),
        ("cut,catalog=northpeak,times=2", Fault("cut", catalog="northpeak", times=2)),
    ],
)
def test_a_fault_is_parsed(text: str, fault: Fault) -> None:
    assert Fault.parse(text) == fault


COMMAND = [sys.executable, "-c", "from octogen_dagster.cli.main import main; main()"]


@contextmanager
def serving(*options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A process of `octogen-dagster sandbox`, and the environment that it prints."""
    with subprocess.Popen(
        [*COMMAND, "sandbox", "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            count = 5 if "--generation" in options else 6  # older ones have no list of shops
            lines = [process.stdout.readline() for _ in range(count)]
            exports = dict(
                line.removeprefix("export ").strip().split("=", 1)
                for line in lines
                if line.startswith("export ")
            )
            yield process, exports
        finally:
            process.kill()


@pytest.mark.slow
def test_the_sandbox_follows_its_options_and_prints_the_environment() -> None:
    older = ("--generation", "seed", "--credit", "0.02", "--fault", "unknown_fields")
    options = ("--catalogs", "acme,zen", "--products", "7", "--api-key", "octo_live_mine")
    with serving(*older, *options) as (process, exports):
        assert exports.keys() == {*API_KEY_VARIABLES, "OCTOGEN_BASE_URL"}
        assert exports["OCTO_API_KEY"] == "octo_live_mine"
        headers = {"Authorization": f"Bearer {exports['OCTO_API_KEY']}"}
        with httpx.Client(base_url=exports["OCTOGEN_BASE_URL"], headers=headers) as client:
            answer = client.get("/catalogs")
            counts = {entry["catalog"]: entry["productCount"] for entry in answer.json()}
            assert counts == {"acme": 7, "zen": 7}
            first, second = (client.post("/products/search", json={}) for _ in range(2))
        assert (first.status_code, second.status_code) == (200, 402)
        assert "addedWithoutNotice" in first.json()
        process.send_signal(2)
        assert process.wait(timeout=30) == 0


@pytest.mark.slow
def test_the_sandbox_injects_faults_and_prints_the_hosts_of_its_shops() -> None:
    options = ("--fault", "status=503,times=1", "--catalogs", "2")
    with serving(*options) as (_, exports):
        headers = {"Authorization": f"Bearer {exports['OCTO_API_KEY']}"}
        url = f"{exports['OCTOGEN_BASE_URL']}/catalogs"
        assert [httpx.get(url, headers=headers).status_code for _ in range(2)] == [503, 404]
        hosts = exports["OCTOGEN_SHOP_HOSTS"].split(",")
        assert len(hosts) == 2
        for host in hosts:
            url = f"{exports['OCTOGEN_BASE_URL']}/domains/{host}"
            assert httpx.get(url, headers=headers).json()["host"] == host


def test_a_port_that_is_taken_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(main, ["sandbox", "--port", port])
    assert result.exit_code == 1
    assert f"The sandbox cannot start: cannot listen on 127.0.0.1:{port}" in result.output
    assert result.output.endswith("Choose another port, or 0 for a free one.\n")


# The sandbox plays the service of today unless an older one is asked for.


ROOT = Path(__file__).parents[3]


def statuses(environment: Mapping[str, str]) -> dict[str, int]:
    """The statuses of the list of catalogs that the older service has, and of its successor."""
    headers = {"Authorization": f"Bearer {environment['OCTOGEN_PLATFORM_API_KEY']}"}
    base_url = environment["OCTOGEN_BASE_URL"]
    paths = ("/catalogs", "/domains/northpeak.example", "/stores/northpeak.example")
    return {path: httpx.get(base_url + path, headers=headers).status_code for path in paths}


TODAY = {
    "/catalogs": 404,
    "/domains/northpeak.example": 200,
    "/stores/northpeak.example": 200,
}
OLDER = {path: 404 if status == 200 else 200 for path, status in TODAY.items()}


def test_the_sandbox_of_a_test_is_the_service_of_today() -> None:
    with Sandbox(catalogs=2, products=1) as sandbox:
        assert statuses(sandbox.environment) == TODAY
        assert (
            sandbox.environment["OCTOGEN_SHOP_HOSTS"] == "harborandpine.example,northpeak.example"
        )
    with Sandbox(catalogs=2, products=1, generation="seed") as older:
        assert statuses(older.environment) == OLDER


def test_the_code_location_of_the_checkout_reads_the_sandbox(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Sandbox(catalogs=2, products=30) as sandbox:
        for name, value in {**sandbox.environment, "OCTOGEN_ENV": "sandbox"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("OCTOGEN_SNAPSHOTS", str(tmp_path))
        defs = runpy.run_path(str(ROOT / "definitions.py"))["defs"]
        job = defs.resolve_implicit_global_asset_job_def()
        job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("octogen_catalogs")])
        job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey("octogen_products")],
            partition_key="northpeak",
        )
    assert pl.read_parquet(tmp_path / "octogen_products/northpeak.parquet").height == 30
