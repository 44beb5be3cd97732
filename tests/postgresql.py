"""A temporary PostgreSQL server on loopback, for tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2

from tests.ports import free_port

USER = "dagster"
PASSWORD = "p@ss/word:%41"
DATABASE = "postgres"
_SETTINGS = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
_START_TIMEOUT = 30
_STOP_TIMEOUT = 20


def server_program(name: str) -> str | None:
    """Return the path of a server program; Debian installs them outside of PATH."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(installed[-1]) if installed else None)


@contextmanager
def running_postgresql() -> Iterator[dict[str, str]]:
    """Run a server with an empty database and a password.

    Yields:
        The environment variables that `deploy/dagster.yaml` reads.
    """
    # The server refuses to run as root, and pytest's folders are closed to any other user.
    with tempfile.TemporaryDirectory(prefix="postgresql-") as name:
        folder = Path(name)
        password = folder / "password"
        password.write_text(PASSWORD)
        user = group = None
        if os.geteuid() == 0:
            user, group = "nobody", "nogroup"
            for path in (folder, password):
                shutil.chown(path, user, group)
        subprocess.run(
            [
                str(server_program("initdb")),
                *("--pgdata", str(folder / "data"), "--username", USER, "--no-sync"),
                *("--auth", "scram-sha-256", "--pwfile", str(password), "--encoding", "UTF8"),
            ],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
            user=user,
            group=group,
        )
        port = free_port()
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
                user=user,
                group=group,
            )
        try:
            _wait_until_ready(server, port, log)
            yield {
                "DAGSTER_POSTGRES_HOST": "127.0.0.1",
                "DAGSTER_POSTGRES_PORT": str(port),
                "DAGSTER_POSTGRES_USER": USER,
                "DAGSTER_POSTGRES_PASSWORD": PASSWORD,
                "DAGSTER_POSTGRES_DB": DATABASE,
            }
        finally:
            server.send_signal(signal.SIGINT)  # "fast" shutdown: it does not wait for clients
            try:
                server.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait_until_ready(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while True:
        try:
            psycopg2.connect(
                host="127.0.0.1", port=port, user=USER, password=PASSWORD, dbname=DATABASE
            ).close()
            return
        except psycopg2.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"PostgreSQL did not start. Its log:\n{log.read_text()}"
                ) from None
            time.sleep(0.1)
