"""A TCP proxy that counts what a server sends, and can break the connections to it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self

DENIED = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Proxy:
    """A proxy on a port of the loopback interface.

    Attributes:
        upstream: The port of the server.
        received: The number of bytes that the server has sent.
        heads: What the clients have sent at the beginning of each request.
        max_sent: Bytes that a client can send in one piece before its connection is cut; None for
            any number.
        is_denied: True to answer every request with 403.
        has_denied: Set when one was answered so.
        answer: What is answered in place of the server to the head of a request; None, or a
            function that returns none, to pass the request on.
        cuts_next: True to cut the connection whose server sends something next, instead of passing
            it on.
        has_cut: Set when a connection was cut for that.
    """

    def __init__(self) -> None:
        self.upstream = 0
        self.received = 0
        self.heads: list[bytes] = []
        self.has_cut = threading.Event()
        self.has_denied = threading.Event()
        self.reset()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def reset(self) -> None:
        """Let everything through."""
        self.max_sent: int | None = None
        self.is_denied = False
        self.answer: Callable[[bytes], bytes | None] | None = None
        self.cuts_next = False
        self.has_denied.clear()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.upstream))
        except ConnectionRefusedError:
            client.close()
            return
        threading.Thread(target=self._receive, args=(server, client), daemon=True).start()
        sent = 0
        while data := _data(client):
            if self.is_denied:
                with contextlib.suppress(OSError):
                    client.sendall(DENIED)
                self.has_denied.set()
                break
            if b" HTTP/1.1\r\n" in data:
                sent = 0
                self.heads.append(data)
                if self.answer and (answer := self.answer(data)):
                    with contextlib.suppress(OSError):
                        client.sendall(answer)
                    break
            sent += len(data)
            if self.max_sent is not None and sent > self.max_sent:
                break
            with contextlib.suppress(OSError):
                server.sendall(data)
        _end(client, server)

    def _receive(self, server: socket.socket, client: socket.socket) -> None:
        while data := _data(server):
            self.received += len(data)
            if self.cuts_next:
                self.cuts_next = False
                self.has_cut.set()
                break
            try:
                client.sendall(data)
            except OSError:
                break
        _end(client, server)


def _end(*connections: socket.socket) -> None:
    """End connections, also for a thread that waits for their data."""
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def _data(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65_536)
    except OSError:
        return b""
