"""The sandbox of a test: its address, its life, its log, and what can be changed while it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from octogen_dagster.sandbox.server import Sandbox
from tests.promises.sandbox_calls import all_items, connect, look_up, search

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


def test_two_processes_make_the_same_products_and_another_seed_other_ones() -> None:
    code = (
        "import sys, httpx\n"
        "from octogen_dagster.sandbox.server import Sandbox\n"
        "with Sandbox(catalogs={'grand-arcade': 1_000_000}, seed=int(sys.argv[1])) as s:\n"
        "    s.next_day()\n"
        "    headers = {'Authorization': f'Bearer {s.api_key}'}\n"
        "    page = httpx.post(s.base_url + '/products/search', json={}, headers=headers)\n"
        "    print(page.json()['items'])\n"
    )
    first, second, other = (
        subprocess.run(
            [sys.executable, "-c", code, seed],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONUTF8": "1"},
            capture_output=True,
            check=True,
        ).stdout
        for seed, hash_seed in (("7", "1"), ("7", "2"), ("8", "1"))
    )
    assert first == second != other


def test_it_is_on_loopback_and_in_the_environment(sandbox: Sandbox) -> None:
    assert sandbox.base_url.startswith("http://127.0.0.1:")
    assert sandbox.base_url.endswith("/v1")
    assert sandbox.environment == {
        "OCTOGEN_PLATFORM_API_KEY": sandbox.api_key,
        "OCTO_API_KEY": sandbox.api_key,
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


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"generation": "next"}, "generation must be one of 'seed', .*'current', not 'next'"),
        ({"catalogs": 13}, "catalogs must be 0 to"),
        ({"catalogs": -1}, "catalogs must be 0 to"),
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
serve(catalogs=1, port=0, announce=lambda sandbox: print(*sandbox.environment.values(), flush=True))
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
        key, _, base_url, host = run.stdout.readline().split()
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
    for host in os.environ["OCTOGEN_SHOPS"].split(","):
        url = os.environ["OCTOGEN_BASE_URL"] + "/domains/" + host
        (catalog,) = httpx.get(url, headers=headers).json()["catalogs"]
        assert catalog["productCount"] == 40
    assert len(octogen_sandbox.requests) == 3


def test_the_environment_is_restored():
    assert os.environ["OCTOGEN_PLATFORM_API_KEY"] == "a real one"
    assert not {"OCTOGEN_BASE_URL", "OCTOGEN_SHOPS"} & set(os.environ)
"""


@pytest.mark.slow
def test_the_fixture_serves_and_cleans_up(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", "a real one")
    monkeypatch.delenv("OCTOGEN_BASE_URL", raising=False)
    monkeypatch.delenv("OCTOGEN_SHOPS", raising=False)
    pytester.makepyfile(_SOMEBODY_ELSES_TEST)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)
