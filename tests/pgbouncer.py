"""A temporary PgBouncer on loopback in front of a PostgreSQL server, for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg2

from tests.ports import free_port

_START_TIMEOUT = 30


def pgbouncer() -> str | None:
    """Return the path of the program, which Debian installs outside of a user's PATH."""
    return shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")


@contextmanager
def running_pgbouncer(server: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Run a pooler in transaction mode that gives each transaction a session of its own.

    Yields:
        The variables of the server, with the port of the pooler.
    """
    port = free_port()
    user, password = server["DAGSTER_POSTGRES_USER"], server["DAGSTER_POSTGRES_PASSWORD"]
    # It refuses to run as root, and pytest's folders are closed to any other user.
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as name:
        folder, owner = Path(name), "nobody" if os.geteuid() == 0 else None
        (folder / "users").write_text(f'"{user}" "{password}"\n')
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={server['DAGSTER_POSTGRES_PORT']}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {folder}/users\n"
            "pool_mode = transaction\nserver_lifetime = 0\n"
        )
        for path in (folder, *folder.iterdir()):
            if owner:
                shutil.chown(path, owner)
        with (folder / "log").open("wb") as log:
            pooler = subprocess.Popen(
                [str(pgbouncer()), str(folder / "pgbouncer.ini")],
                stdout=log,
                stderr=log,
                user=owner,
            )
        try:
            there = {**server, "DAGSTER_POSTGRES_PORT": str(port)}
            _wait_until_ready(there, pooler, folder / "log")
            yield there
        finally:
            pooler.kill()
            pooler.wait()


def _wait_until_ready(there: Mapping[str, str], pooler: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while True:
        try:
            psycopg2.connect(
                host="127.0.0.1",
                port=there["DAGSTER_POSTGRES_PORT"],
                user=there["DAGSTER_POSTGRES_USER"],
                password=there["DAGSTER_POSTGRES_PASSWORD"],
                dbname=there["DAGSTER_POSTGRES_DB"],
            ).close()
            return
        except psycopg2.OperationalError:
            if pooler.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PgBouncer did not start:\n{log.read_text()}") from None
            time.sleep(0.1)
