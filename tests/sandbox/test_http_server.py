"""The HTTP server: its socket, its start and its stop."""

import asyncio
import logging
import threading

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from octogen_dagster.sandbox.http_server import HttpServer, listen

SECONDS = 30


def test_a_port_can_be_used_once() -> None:
    with listen(0) as listener:
        host, port = listener.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: "):
            listen(port)


def test_it_serves_until_it_is_stopped() -> None:
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("here"))])
    listener, closing = listen(0), asyncio.Event()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server = HttpServer(app, listener, closing)
    thread = threading.Thread(target=server.run)
    thread.start()
    assert server.ready.wait(SECONDS)
    assert httpx.get(url).text == "here"
    server.stop()
    thread.join(SECONDS)
    assert not thread.is_alive()
    assert closing.is_set()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_an_incomplete_body_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    with listen(0) as listener:
        HttpServer(Starlette(), listener, asyncio.Event())
        logger = logging.getLogger("uvicorn.error")
        logger.error("ASGI callable returned without completing response.")
        logger.error("something else")
    assert [record.message for record in caplog.records] == ["something else"]
