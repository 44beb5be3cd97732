"""A throw-away PostgreSQL server on loopback."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2

USER = "dagster"
PASSWORD = "p@ss/word:%41"
DATABASE = "postgres"
_SETTINGS = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
_START_TIMEOUT = 30
_STOP_TIMEOUT = 20


def server_program(name: str) -> str | None:
    """Where a program of the server is; Debian keeps them out of PATH."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(installed[-1]) if installed else None)


@contextmanager
def running_postgresql() -> Iterator[dict[str, str]]:
    """Run a server with an empty database that asks for a password.

    Yields:
        The environment that `deploy/dagster.yaml` reads.
    """
    # Not in pytest's own folder, which is closed to the other user that the server needs.
    with tempfile.TemporaryDirectory(prefix="postgresql-") as name:
        folder = Path(name)
        password = folder / "password"
        password.write_text(PASSWORD)
        as_owner: dict[str, str] = {}
        if os.geteuid() == 0:
            as_owner = {"user": "nobody", "group": "nogroup"}
            for path in (folder, password):
                shutil.chown(path, "nobody", "nogroup")
        subprocess.run(
            [
                str(server_program("initdb")),
                *("--pgdata", str(folder / "data"), "--username", USER, "--no-sync"),
                *("--auth", "scram-sha-256", "--pwfile", str(password), "--encoding", "UTF8"),
            ],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
            **as_owner,
        )
        port = _free_port()
        settings = {**_SETTINGS, "port": port}
        log = folder / "log"
        with log.open("wb") as output:
            server = subprocess.Popen(
                [
                    *(str(server_program("postgres")), "-D", str(folder / "data")),
                    *(f"--{name}={value}" for name, value in settings.items()),
                ],
                cwd=folder,
                stdout=output,
                stderr=output,
                **as_owner,
            )
        try:
            _wait_for_it(server, port, log)
            yield {
                "DAGSTER_POSTGRES_HOST": "127.0.0.1",
                "DAGSTER_POSTGRES_PORT": str(port),
                "DAGSTER_POSTGRES_USER": USER,
                "DAGSTER_POSTGRES_PASSWORD": PASSWORD,
                "DAGSTER_POSTGRES_DB": DATABASE,
            }
        finally:
            server.send_signal(signal.SIGINT)  # without waiting for clients
            try:
                server.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_it(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while True:
        try:
            psycopg2.connect(
                host="127.0.0.1", port=port, user=USER, password=PASSWORD, dbname=DATABASE
            ).close()
            return
        except psycopg2.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}") from None
            time.sleep(0.1)
