"""The HTTP server of a sandbox: uvicorn on loopback, which stops at once."""

import asyncio
import logging
import socket
from threading import Event

import uvicorn
from starlette.applications import Starlette

from octogen_dagster.sandbox.address import HOST

_LAST_RESPONSE_TIMEOUT = 1


def listen(port: int) -> socket.socket:
    """Return a socket that listens on 127.0.0.1.

    Args:
        port: The port; 0 for a free one.

    Raises:
        OSError: The port cannot be used. The message names the address.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        reason = f"cannot listen on {HOST}:{port}: {error.strerror}"
        raise OSError(error.errno, reason) from error
    return listener


class HttpServer(uvicorn.Server):
    """A uvicorn server that reports when it is ready and stops without its usual pauses.

    Args:
        app: The application to serve.
        listener: A socket that listens.
        closing: Set when the server stops.

    Attributes:
        ready: Set when the server accepts requests.
    """

    def __init__(self, app: Starlette, listener: socket.socket, closing: asyncio.Event) -> None:
        logging.getLogger("uvicorn.error").addFilter(_is_no_cut_body)
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="auto",
                ws="none",
                server_header=False,
            )
        )
        self.ready = Event()
        self._listener = listener
        self._closing = closing
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until the server is stopped or the process receives SIGINT or SIGTERM."""
        super().run(sockets=sockets or [self._listener])

    def stop(self) -> None:
        """Ask the server to stop, from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._closing.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self.ready.set()

    async def main_loop(self) -> None:
        until_signal = asyncio.ensure_future(super().main_loop())
        until_stop = asyncio.ensure_future(self._closing.wait())
        await asyncio.wait((until_signal, until_stop), return_when=asyncio.FIRST_COMPLETED)
        until_signal.cancel()
        until_stop.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._closing.set()
        for server in self.servers:
            server.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(list(state.tasks), timeout=_LAST_RESPONSE_TIMEOUT)
        await self.lifespan.shutdown()


def _is_no_cut_body(record: logging.LogRecord) -> bool:
    """Return False for uvicorn's message about a body that a `cut` fault left incomplete."""
    return record.msg != "ASGI callable returned without completing response."
