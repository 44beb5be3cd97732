"""The sandbox: its address, its log, and the changes that can be made while it runs."""

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import httpx
import pytest

from octogen_dagster.sandbox.address import DEFAULT_API_KEY
from octogen_dagster.sandbox.server import Sandbox
from tests.sandbox.calls import connect, iter_pages, search

_SERVER_THREAD = "octogen-sandbox"


def _product_counts(client: httpx.Client) -> dict[str, int]:
    return {entry["catalog"]: entry["productCount"] for entry in client.get("/catalogs").json()}


class TestCatalogs:
    def test_a_number_chooses_built_in_catalogs(self) -> None:
        with (
            Sandbox(catalogs=12, products=3, generation="seed") as sandbox,
            connect(sandbox) as client,
        ):
            counts = _product_counts(client)
        assert len(counts) == 12
        assert set(counts.values()) == {3}

    def test_keys_may_be_any_text(self) -> None:
        keys = ["strada", "../x", "a/b", "..."]
        with (
            Sandbox(catalogs=keys, products=2, generation="seed") as sandbox,
            connect(sandbox) as client,
        ):
            assert _product_counts(client) == dict.fromkeys(keys, 2)
            assert len(search(client, catalog="../x").json()["items"]) == 2

    def test_a_catalog_appears_grows_and_goes_away(
        self, sandbox: Sandbox, client: httpx.Client
    ) -> None:
        sandbox.grant("voltaic", products=7)
        sandbox.grant("kumo")
        assert _product_counts(client) == {
            "northpeak": 120,
            "strada": 30,
            "voltaic": 7,
            "kumo": 250,
        }
        sandbox.grant("voltaic", products=8)
        assert len(search(client, catalog="voltaic").json()["items"]) == 8
        url = search(client, catalog="voltaic").json()["items"][0]["productUrl"]
        sandbox.revoke("voltaic")
        assert search(client, catalog="voltaic").status_code == 404
        assert client.post("/products/lookup", json={"url": url}).status_code == 404
        assert "voltaic" not in _product_counts(client)

    def test_an_index_run_moves_its_time_forward(
        self, sandbox: Sandbox, client: httpx.Client
    ) -> None:
        before = client.get("/catalogs").json()
        sandbox.touch("strada")
        after = client.get("/catalogs").json()
        assert after[0] == before[0]
        assert after[1] == {**before[1], "lastIndexedAt": "2026-01-16T06:00:00Z"}

    def test_a_day_passes_and_a_price_is_set(self, sandbox: Sandbox, client: httpx.Client) -> None:
        def prices() -> dict[str, float | None]:
            pages = iter_pages(client, catalog="northpeak", limit=100)
            return {item["productUrl"]: item.get("currentPrice") for page in pages for item in page}

        before = prices()
        sandbox.next_day()
        after = prices()
        assert after.keys() - before.keys()
        changed = {url for url in before.keys() & after.keys() if before[url] != after[url]}
        assert 0 < len(changed) < len(before) / 2
        sandbox.set_price(url := min(after), 8_995.0)
        assert prices() == {**after, url: 8_995.0}

    def test_a_catalog_that_is_not_granted_cannot_be_changed(self, sandbox: Sandbox) -> None:
        for change in (sandbox.touch, sandbox.revoke):
            with pytest.raises(
                LookupError, match="'kumo' is not granted; granted: northpeak, strada"
            ):
                change("kumo")


class TestUnderstanding:
    def test_a_phrase_can_mean_something_else_the_next_day(
        self, current: Sandbox, current_client: httpx.Client
    ) -> None:
        def facets() -> list[dict[str, Any]]:
            page: dict[str, Any] = search(current_client, q="tundra").json()
            found: list[dict[str, Any]] = page["effectiveQuery"]["facets"]
            return found

        assert facets() == []
        current.understand_as("Tundra", {"gender": ["male"]})
        assert facets() == [{"name": "gender", "values": ["male"], "source": "generated"}]
        with pytest.raises(ValueError, match="needs at least one word"):
            current.understand_as(" ", {})


class TestProducts:
    def test_a_product_that_no_catalog_has_cannot_be_removed(self, sandbox: Sandbox) -> None:
        with pytest.raises(LookupError, match="take one from a search"):
            sandbox.remove_product("https://www.strada.example/products/x-1")

    def test_a_removed_product_is_neither_counted_nor_found(
        self, sandbox: Sandbox, client: httpx.Client
    ) -> None:
        url = search(client, catalog="strada").json()["items"][0]["productUrl"]
        sandbox.remove_product(url)
        assert _product_counts(client)["strada"] == 29
        assert len(search(client, catalog="strada").json()["items"]) == 29
        assert client.post("/products/lookup", json={"url": url}).status_code == 404


class TestAddress:
    def test_it_is_on_loopback_and_in_the_environment(self, sandbox: Sandbox) -> None:
        assert sandbox.base_url.startswith("http://127.0.0.1:")
        assert sandbox.base_url.endswith("/v1")
        assert sandbox.environment == {
            "OCTOGEN_PLATFORM_API_KEY": DEFAULT_API_KEY,
            "OCTO_API_KEY": DEFAULT_API_KEY,
            "OCTOGEN_BASE_URL": sandbox.base_url,
        }

    def test_its_hosts_are_those_of_the_shops_of_its_catalogs_each_once(self) -> None:
        keys = ["northpeak", "northpeak.outlet", "strada"]
        assert Sandbox(catalogs=keys, generation="seed").hosts == [
            "northpeak.example",
            "strada.example",
        ]

    def test_it_has_none_before_it_runs(self) -> None:
        with pytest.raises(RuntimeError, match="with"):
            _ = Sandbox(generation="seed").base_url

    def test_a_port_can_be_chosen_but_not_taken_twice(self, sandbox: Sandbox) -> None:
        port = int(sandbox.base_url.split(":")[2].removesuffix("/v1"))
        with (
            pytest.raises(OSError, match=f"127.0.0.1:{port}"),
            Sandbox(port=port, generation="seed"),
        ):
            pass

    def test_its_key_can_be_chosen(self) -> None:
        with Sandbox(api_key="octo_live_mine", generation="seed") as sandbox:
            with connect(sandbox) as client:
                assert search(client).status_code == 200
            with connect(sandbox, api_key=DEFAULT_API_KEY) as client:
                assert search(client).status_code == 401


class TestLifetime:
    def test_nothing_is_left_when_it_ends(self) -> None:
        with Sandbox(catalogs=1, generation="seed") as sandbox, connect(sandbox) as client:
            assert search(client).status_code == 200
            assert _SERVER_THREAD in {thread.name for thread in threading.enumerate()}
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{sandbox.base_url}/catalogs")
        assert _SERVER_THREAD not in {thread.name for thread in threading.enumerate()}

    def test_it_can_run_again(self) -> None:
        sandbox = Sandbox(catalogs=1, generation="seed")
        for _ in range(2):
            with sandbox, connect(sandbox) as client:
                assert search(client).status_code == 200

    def test_an_error_in_the_block_stops_it_too(self) -> None:
        with pytest.raises(ZeroDivisionError), Sandbox(catalogs=1, generation="seed") as sandbox:
            _ = 1 / 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{sandbox.base_url}/catalogs")


class TestRequestLog:
    def test_requests_are_kept_in_order_of_arrival(
        self, sandbox: Sandbox, client: httpx.Client
    ) -> None:
        responses = [client.get("/catalogs"), search(client, q="tent", limit=0)]
        first, second = sandbox.requests
        assert (first.method, first.path, first.body) == ("GET", "/catalogs", None)
        assert (second.method, second.path) == ("POST", "/products/search")
        assert second.body == {"q": "tent", "limit": 0}
        assert [request.status for request in sandbox.requests] == [200, 422]
        assert [request.has_key for request in sandbox.requests] == [True, True]
        assert [request.request_id for request in sandbox.requests] == [
            response.headers["x-request-id"] for response in responses
        ]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"generation": "next"}, "one of 'seed', 'interim', 'current', not 'next'"),
        ({"catalogs": 13}, "0 to 12"),
        ({"catalogs": [""]}, "at least one character"),
        ({"products": -1}, "0 or more"),
        ({"port": 70_000}, "0 to 65535"),
        ({"requests_per_minute": 0}, "1 or more"),
        ({"credit_usd": -1}, "credit_usd must be 0 or more, not -1"),
    ],
)
def test_invalid_arguments_are_refused_at_once(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Sandbox(**arguments)


_SERVE = """
from octogen_dagster.sandbox.server import serve
serve(catalogs=1, port=0, announce=lambda sandbox: print(sandbox.base_url, flush=True))
print("ended", flush=True)
"""


@pytest.mark.parametrize(
    ("sent", "code", "last_words"),
    [(signal.SIGINT, 0, "ended\n"), (signal.SIGTERM, -signal.SIGTERM, "")],
)
def test_it_serves_in_the_foreground_until_a_signal(
    sent: signal.Signals, code: int, last_words: str
) -> None:
    with subprocess.Popen([sys.executable, "-c", _SERVE], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        base_url = run.stdout.readline().strip()
        headers = {"Authorization": f"Bearer {DEFAULT_API_KEY}"}
        transport = httpx.HTTPTransport(retries=10)
        with httpx.Client(headers=headers, transport=transport, timeout=30) as client:
            assert len(client.get(f"{base_url}/catalogs").json()) == 1
        os.kill(run.pid, sent)
        rest, _ = run.communicate(timeout=30)
    assert (run.returncode, rest) == (code, last_words)


@pytest.mark.parametrize("missing", ["uvicorn", "starlette"])
def test_a_missing_extra_is_named(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import octogen_dagster.sandbox.server"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError" in run.stderr
    assert f'{missing}: pip install "octogen-dagster[sandbox]"' in run.stderr
