"""A temporary Redis server on loopback, for tests."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

from tests.ports import free_port

_START_TIMEOUT = 30


@contextlib.contextmanager
def running_redis(port: int | None = None) -> Iterator[str]:
    """Run a server that stores nothing, and yield its URL."""
    port = port or free_port()
    settings = {"bind": "127.0.0.1", "port": str(port), "save": "", "appendonly": "no"}
    command = [str(shutil.which("redis-server"))]
    command += [word for name, value in settings.items() for word in (f"--{name}", value)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            _wait_until_ready(server, port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.kill()


def _wait_until_ready(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except ConnectionError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("Redis did not start.") from None
        time.sleep(0.05)
