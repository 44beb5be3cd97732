from __future__ import annotations

import asyncio
import gc
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from octogen_dagster.api.cancellation import CancelScope, ClosedError, run_within
from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.connection import Connection
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.lookup_endpoint import parsed_lookup
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.background import submit
from octogen_dagster.errors import OctogenTimeoutError
from tests.api.clients import Clock
from tests.api.servers import KEY, POLL_SECONDS, RawServer, Received, http

ENDING_SECONDS = 10
"""The promise is two seconds; a busy machine takes longer, and a broken promise 30 or more."""
LONG = RetryPolicy(attempts=100, first_delay=100, max_delay=100)


class TestScope:
    def test_a_wait_ends_when_another_thread_cancels(self) -> None:
        scope = CancelScope()
        waiting = submit(lambda: scope.wait(1000), "waiting")
        scope.cancel()
        with pytest.raises(ClosedError):
            waiting.result(POLL_SECONDS)
        assert scope.is_cancelled

    def test_a_wait_that_is_not_cancelled_returns(self) -> None:
        CancelScope().wait(0)
        CancelScope(1000).wait(0.001)

    def test_the_time_of_a_scope_ends_its_waits(self) -> None:
        clock = Clock()
        scope = CancelScope(5, clock=clock)
        assert scope.remaining == 5
        clock.now += 5
        assert scope.remaining == 0
        assert not scope.is_cancelled
        for blocked in (scope.check, lambda: scope.wait(1000)):
            with pytest.raises(ClosedError):
                blocked()

    def test_the_end_of_a_scope_is_that_of_those_within_it_only(self) -> None:
        around = CancelScope()
        within, beside = around.child(), around.child()
        within.cancel()
        assert within.is_cancelled
        assert not beside.is_cancelled
        assert not around.is_cancelled
        around.cancel()
        assert beside.is_cancelled
        assert around.child().is_cancelled

    def test_a_scope_has_no_more_time_than_the_one_around_it(self) -> None:
        clock = Clock()
        around = CancelScope(10, clock=clock)
        assert [around.child(seconds).seconds for seconds in (5, 50, None)] == [5, 10, 10]
        clock.now += 10
        assert around.child(5).remaining == 0

    def test_scopes_that_are_over_are_forgotten(self) -> None:
        around = CancelScope()
        for _ in range(10):
            around.child()
        gc.collect()
        assert not around._children

    def test_callbacks_are_called_while_their_block_runs(self) -> None:
        scope = CancelScope()
        called: list[str] = []
        with scope.on_cancel(lambda: called.append("before")):
            pass
        with scope.on_cancel(lambda: called.append("within")):
            scope.cancel()
        with scope.on_cancel(lambda: called.append("late")):
            assert called == ["within", "late"]

    def test_a_pickled_copy_is_a_scope_of_its_own(self) -> None:
        scope = CancelScope(5)
        scope.cancel()
        copy = pickle.loads(pickle.dumps(scope))
        assert (copy.is_cancelled, copy.remaining) == (False, float("inf"))

    async def test_work_within_a_scope_ends_with_it(self) -> None:
        scope = CancelScope()
        asyncio.get_running_loop().call_soon(scope.cancel)
        with pytest.raises(ClosedError):
            await asyncio.create_task(run_within(scope, asyncio.sleep(1000)))
        with pytest.raises(ClosedError):
            await asyncio.create_task(run_within(CancelScope(0.01), asyncio.sleep(1000)))

    async def test_work_that_its_caller_cancels_is_cancelled(self) -> None:
        task = asyncio.create_task(run_within(CancelScope(), asyncio.sleep(1000)))
        asyncio.get_running_loop().call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task


def silent(server: RawServer) -> Iterable[bytes]:
    server.closing.wait(POLL_SECONDS)
    yield b""


def dripping(server: RawServer) -> Iterable[bytes]:
    yield b"HTTP/1.1 200 OK\r\nx-slow: "
    while not server.closing.wait(0.1):
        yield b"x"


def failing(_: RawServer) -> Iterable[bytes]:
    return http(503)


def rate_limited(_: RawServer) -> Iterable[bytes]:
    return http(429, retry_after="100")


class BusyServer(RawServer):
    """A server that says when it has received a request."""

    def __init__(self, respond: Callable[[RawServer], Iterable[bytes]]) -> None:
        self.asked = threading.Event()

        def respond_and_tell(_: Received) -> Iterable[bytes]:
            self.asked.set()
            return respond(self)

        super().__init__(respond_and_tell)

    def connection(self, **settings: Any) -> Connection:
        return Connection(api_key=ApiKey(KEY), base_url=self.base_url, retry=LONG, **settings)


servers = pytest.mark.parametrize(
    "respond", [silent, dripping, failing, rate_limited], ids=lambda respond: respond.__name__
)
calls = pytest.mark.parametrize("call", [Connection.call, Connection.call_concurrently])


class TestCalls:
    @calls
    @servers
    def test_a_call_ends_with_its_scope(self, call: Any, respond: Any) -> None:
        with BusyServer(respond) as server:
            connection = server.connection()
            calling = submit(lambda: call(connection, OctogenClient.list_catalogs), "calling")
            assert server.asked.wait(POLL_SECONDS)
            connection.scope.cancel()
            with pytest.raises(ClosedError):
                calling.result(ENDING_SECONDS)

    @calls
    @servers
    def test_a_call_ends_with_the_time_of_its_scope(self, call: Any, respond: Any) -> None:
        with BusyServer(respond) as server:
            connection = server.connection(scope=CancelScope(0.5))
            calling = submit(lambda: call(connection, OctogenClient.list_catalogs), "calling")
            with pytest.raises(OctogenTimeoutError) as caught:
                calling.result(ENDING_SECONDS)
        assert str(caught.value) == (
            f"{server.base_url} did not answer all requests within 0.5 s, which is all the time "
            "that there was for them. Try again."
        )

    @calls
    def test_a_call_that_blocks_its_thread_ends_with_the_time_of_its_scope(self, call: Any) -> None:
        blocked = threading.Event()

        async def block(_: OctogenClient) -> None:
            blocked.wait(POLL_SECONDS)

        with BusyServer(silent) as server:
            connection = server.connection(scope=CancelScope(0.1))
            with pytest.raises(OctogenTimeoutError, match=r"within 0\.1 s"):
                call(connection, block)
        blocked.set()

    @calls
    def test_a_call_ends_with_what_its_poll_raises(self, call: Any) -> None:
        def poll() -> None:
            if server.asked.is_set():
                raise KeyboardInterrupt

        with BusyServer(silent) as server:
            connection = server.connection(scope=CancelScope(poll=poll))
            calling = submit(lambda: call(connection, OctogenClient.list_catalogs), "calling")
            with pytest.raises(KeyboardInterrupt):
                calling.result(ENDING_SECONDS)

    def test_a_name_server_that_hangs_keeps_no_call_from_ending(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answered = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(POLL_SECONDS))
        connection = Connection(
            api_key=ApiKey(KEY), base_url="http://localhost:1/v1", scope=CancelScope(0.2)
        )
        with pytest.raises(OctogenTimeoutError):
            connection.call_concurrently(OctogenClient.list_catalogs)
        threads = [each for each in threading.enumerate() if each.name == "octogen-call"]
        for thread in threads:
            thread.join(ENDING_SECONDS)
        assert not any(thread.is_alive() for thread in threads)
        answered.set()

    def test_a_wait_for_the_rate_limit_ends_with_the_scope(self) -> None:
        waiting = threading.Event()

        async def operation(client: OctogenClient) -> None:
            client._requester._rate_limiter.update(
                {"x-ratelimit-limit": "1", "x-ratelimit-remaining": "0"}
            )
            waiting.set()
            await client.get_raw_lookup("https://shop.example/1", parsed_lookup)

        with BusyServer(silent) as server:
            connection = server.connection()
            calling = submit(lambda: connection.call(operation), "calling")
            assert waiting.wait(POLL_SECONDS)
            connection.scope.cancel()
            with pytest.raises(ClosedError):
                calling.result(ENDING_SECONDS)
            assert not server.asked.is_set()

    @calls
    def test_an_interrupt_while_its_thread_is_started_ends_a_call(
        self, call: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        start, threads = threading.Thread.start, list[threading.Thread]()

        def start_slowly(thread: threading.Thread) -> None:
            start(thread)
            if thread.name == "octogen-call":
                threads.append(thread)
                assert server.asked.wait(POLL_SECONDS)
                raise KeyboardInterrupt

        with BusyServer(silent) as server:
            monkeypatch.setattr(threading.Thread, "start", start_slowly)
            with pytest.raises(KeyboardInterrupt):
                call(server.connection(), OctogenClient.list_catalogs)
            threads[0].join(ENDING_SECONDS)
            assert not threads[0].is_alive()

    def test_a_connection_can_be_used_after_a_call_was_interrupted(self) -> None:
        with BusyServer(lambda _: http(200, [])) as server:
            connection = server.connection()
            connection.with_own_scope().scope.cancel()
            assert connection.call(OctogenClient.list_catalogs) == []


PROGRAM = """
import signal, sys, threading
from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.connection import Connection
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.retry import RetryPolicy

class Terminated(BaseException):
    pass

def terminate(*_):
    raise Terminated

for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, terminate)
connection = Connection(
    api_key=ApiKey("octo_live_test"), base_url=sys.argv[1], retry=RetryPolicy(first_delay=100)
)
try:
    getattr(connection, sys.argv[2])(OctogenClient.list_catalogs)
except Terminated:
    for thread in threading.enumerate():
        if thread.name == "octogen-call":
            thread.join()
    print("terminated", flush=True)
"""


@pytest.mark.parametrize(
    ("respond", "call", "number"),
    [
        (silent, "call", signal.SIGTERM),
        (dripping, "call_concurrently", signal.SIGINT),
        (failing, "call", signal.SIGINT),
        (failing, "call_concurrently", signal.SIGTERM),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_signal_ends_a_process_that_waits(
    respond: Any, call: str, number: signal.Signals
) -> None:
    with BusyServer(respond) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, server.base_url, call],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.asked.wait(POLL_SECONDS)
            process.send_signal(number)
            output, errors = process.communicate(timeout=ENDING_SECONDS)
        finally:
            process.kill()
    assert (output, process.returncode) == ("terminated\n", 0)
    assert "Traceback" not in errors
