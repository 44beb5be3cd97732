"""The fixture of an empty database or warehouse of each engine."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.warehouses import ENGINES, FAKESNOW, Postgres, Warehouse

_STOP_TIMEOUT = 20


@contextmanager
def running_bigquery(folder: Path) -> Iterator[dict[str, str]]:
    """Run the emulator, and yield the variables that lead to it."""
    from tests.servers.bigquery import answering, environment, running_emulator

    with running_emulator(folder) as address, answering(lambda *_: (404, {})) as token_server:
        yield environment(address, token_server, folder)


@contextmanager
def running_snowflake(folder: Path) -> Iterator[int]:
    """Run fakesnow, and yield its port."""
    port = free_port()
    program = Path(__file__).parents[2] / "servers" / "fakesnow_server.py"
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [f"{FAKESNOW}/bin/python", str(program), str(port)], stdout=log, stderr=log
        )
    try:
        _wait_for(port, server, folder / "log")
        yield port
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    ends_at = time.monotonic() + 60
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if server.poll() is not None or time.monotonic() > ends_at:
            raise RuntimeError(f"fakesnow did not start:\n{log.read_text()}")
        time.sleep(0.1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[dict[str, str]]:
    from tests.postgresql import running_postgresql

    with running_postgresql() as server:
        yield server


@pytest.fixture
def postgres(postgres_server: dict[str, str]) -> Iterator[Postgres]:
    """An empty database of PostgreSQL."""
    with closing(Postgres(postgres_server)) as postgres:
        yield postgres


@pytest.fixture(scope="session")
def bigquery_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with running_bigquery(tmp_path_factory.mktemp("bigquery")) as variables:
        yield variables


@pytest.fixture(scope="session")
def snowflake_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with running_snowflake(tmp_path_factory.mktemp("snowflake")) as port:
        yield port


@pytest.fixture(params=[pytest.param(name, marks=each.marks) for name, each in ENGINES.items()])
def warehouse(request: pytest.FixtureRequest) -> Iterator[Warehouse]:
    """An empty database or warehouse of each engine."""
    engine = ENGINES[request.param]
    with closing(engine(request.getfixturevalue(engine.server))) as warehouse:
        yield warehouse
