"""Tests of what is logged while requests wait or are repeated."""

from __future__ import annotations

import logging
import pickle
import re
import socket
from pathlib import Path

import pytest

from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.connection import Connection
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.pacing import RateLimiter
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.wait_log import WaitLog
from octogen_dagster.errors import OctogenConnectionError, OctogenNotFoundError
from tests.api.certificates import make_certificate
from tests.api.clients import Clock, Transport, Waits, open_client
from tests.api.servers import KEY, RawServer, http, in_turn, page

FIVE = RetryPolicy(attempts=5)
GOOD = http(200, page(["a"]))


class Address:
    """The base URL of a server that is not there."""

    api_key = KEY

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url


@pytest.fixture
def lines() -> list[str]:
    """The lines of `wait_log`."""
    return []


@pytest.fixture
def wait_log(lines: list[str]) -> WaitLog:
    return WaitLog(lines.append)


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


class TestWrongAddress:
    @pytest.mark.parametrize(
        ("base_url", "reason"),
        [
            (f"http://127.0.0.1:{closed_port()}/v1", "connect"),
            ("https://octogen.invalid/v1", "(resolve host|not known|resolution)"),
        ],
        ids=["closed port", "unknown host"],
    )
    async def test_it_is_told_before_the_first_wait_and_once(
        self, base_url: str, reason: str, transport: Transport, waits: Waits
    ) -> None:
        waited: list[int] = []
        lines: list[str] = []

        def warn(line: str) -> None:
            waited.append(len(waits))
            lines.append(line)

        async with open_client(
            Address(base_url), transport, retry=FIVE, waits=waits, wait_log=WaitLog(warn)
        ) as client:
            for _ in range(2):
                with pytest.raises(OctogenConnectionError):
                    await client.search_products(catalog="acme")
        assert len(waits) == 8
        assert waited == [0]
        [line] = lines
        assert re.search(rf": no complete response from {re.escape(base_url)} \(.*{reason}", line)
        assert line.endswith(
            f" The request is repeated in {waits[0]:.1f} s, and given up after 300 s at the "
            "latest. Further repetitions are not logged."
        )
        assert KEY not in line

    async def test_a_certificate_of_another_host_is_told(
        self,
        transport: Transport,
        waits: Waits,
        wait_log: WaitLog,
        lines: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        certificate = make_certificate(tmp_path / "server.pem")
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
        with RawServer(lambda _: GOOD, certificate=certificate) as server:
            wrong = Address(f"https://localhost:{server.port}/v1")
            async with open_client(
                wrong, transport, retry=FIVE, waits=waits, wait_log=wait_log
            ) as client:
                with pytest.raises(OctogenConnectionError):
                    await client.search_products()
            assert not server.received
        [line] = lines
        assert wrong.base_url in line
        assert "localhost" in line.partition("(")[2]


class TestRefusals:
    @pytest.mark.parametrize(("status", "reason"), [(429, "429"), (503, "503")])
    async def test_a_long_wait_is_told_once(
        self,
        status: int,
        reason: str,
        transport: Transport,
        waits: Waits,
        wait_log: WaitLog,
        lines: list[str],
    ) -> None:
        refused = http(status, {"detail": "busy"}, retry_after="40")
        with RawServer(in_turn(refused, refused, GOOD, refused, GOOD)) as server:
            async with open_client(
                server, transport, retry=FIVE, waits=waits, wait_log=wait_log
            ) as client:
                await client.search_products()
                await client.search_products()
        assert len(waits) == 3
        [line] = lines
        assert reason in line
        assert f"The request is repeated in {waits[0]:.1f} s" in line
        assert waits[0] > 40

    async def test_short_waits_are_not_told(
        self, waits: Waits, wait_log: WaitLog, lines: list[str]
    ) -> None:
        refused = http(429, {"detail": "busy"}, retry_after="1")
        with RawServer(in_turn(refused, GOOD)) as server:
            async with open_client(server, retry=FIVE, waits=waits, wait_log=wait_log) as client:
                await client.search_products()
        assert len(waits) == 1
        assert lines == []

    async def test_each_reason_is_told(
        self, waits: Waits, wait_log: WaitLog, lines: list[str]
    ) -> None:
        limited = http(429, {"detail": "busy"}, retry_after="40")
        with RawServer(in_turn([b""], limited, http(500, {}, retry_after="9"), GOOD)) as server:
            async with open_client(server, retry=FIVE, waits=waits, wait_log=wait_log) as client:
                await client.search_products()
        assert ["no complete response" in line for line in lines] == [True, False, False]
        assert "429" in lines[1]
        assert "500" in lines[2]


async def test_a_read_that_is_held_to_the_rate_limit_says_so_once(
    waits: Waits, wait_log: WaitLog, lines: list[str]
) -> None:
    limited = http(404, {}, x_ratelimit_limit="60", x_ratelimit_remaining="11")
    limiter = RateLimiter(reserve=0.2, clock=Clock())
    with RawServer(lambda _: limited) as server:
        async with open_client(
            server, rate_limiter=limiter, waits=waits, wait_log=wait_log
        ) as client:
            for number in range(8):
                with pytest.raises(OctogenNotFoundError):
                    await client.get_domain("acme.example", paced=True)
                assert len(lines) == (sum(waits) >= 5), number
    assert sum(waits) > 5
    [line] = lines
    assert line == (
        "Requests wait for the organisation's rate limit of 60 a minute, of which 20% are left to "
        "others: the next one is sent in 2.0 s. Further waits are not logged. Ask Octogen for a "
        "higher limit if this takes too long."
    )


def test_a_connection_tells_once_however_many_clients_it_has(
    caplog: pytest.LogCaptureFixture,
) -> None:
    connection = Connection(
        api_key=ApiKey(KEY),
        base_url=f"http://127.0.0.1:{closed_port()}/v1",
        retry=RetryPolicy(attempts=2, first_delay=0.001),
    )
    for call in (connection.call, connection.call_concurrently):
        with pytest.raises(OctogenConnectionError):
            call(OctogenClient.list_catalogs)
    [record] = caplog.records
    assert (record.name, record.levelno) == ("octogen_dagster.api.wait_log", logging.WARNING)
    lines: list[str] = []
    with pytest.raises(OctogenConnectionError):
        connection.with_log(lines.append).call(OctogenClient.list_catalogs)
    assert [line.partition(" (")[0] for line in lines] == [record.getMessage().partition(" (")[0]]


def test_a_copy_logs_by_logging(lines: list[str], caplog: pytest.LogCaptureFixture) -> None:
    copy = pickle.loads(pickle.dumps(WaitLog(lines.append)))
    copy.wait_after(OctogenConnectionError("No answer."), 1, RetryPolicy())
    assert lines == []
    assert caplog.messages[0].startswith("No answer.")
