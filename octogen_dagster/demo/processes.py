"""The processes of Dagster that the demo runs: a daemon, with or without the UI."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from octogen_dagster.sandbox import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFINITIONS = "octogen_dagster.demo.definitions"
_START_TIMEOUT = 300
_END_THE_GROUP = 'cat; kill -s TERM -- "-$0"; sleep 2; kill -s KILL -- "-$0"'
"""A shell that ends a group of processes when its own standard input ends."""


class DagsterProcess:
    """A process of Dagster, and the file of its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.log = log
        self._process = process

    def check(self) -> None:
        """Exit if it has ended."""
        if self._process.poll() is not None:
            raise SystemExit(f"Dagster ended by itself. Its log is {self.log}.")

    def wait_for_ui(self, url: str) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            self.check()
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/server_info", timeout=5).close()  # noqa: S310
                return
            time.sleep(0.2)
        raise SystemExit(f"The Dagster UI did not start. The reason may be in {self.log}.")

    def wait(self) -> NoReturn:
        """Wait until it ends by itself.

        After a query of Polars, a signal no longer interrupts the waiting for a process.
        """
        while True:
            self.check()
            time.sleep(0.5)


@contextlib.contextmanager
def dagster_process(log: Path, *command: str) -> Iterator[DagsterProcess]:
    """Run a module of Dagster until the block ends, or until this process does, however it ends."""
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", *command, "-m", DEFINITIONS, "--log-level", "warning"],
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    # In a session of its own: a Ctrl-C in the terminal must not end it before Dagster.
    watcher = subprocess.Popen(  # noqa: S603 - its pipe ends with this process
        ["/bin/sh", "-c", _END_THE_GROUP, str(process.pid)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield DagsterProcess(process, log)
    finally:
        watcher.communicate()
        process.wait()


def ui_port(port: int | None) -> int:
    """A port for the UI: the one that is asked for, or 3000, or a free one if that is taken.

    It is refused before anything is written.
    """
    if not importlib.util.find_spec("dagster_webserver"):
        raise SystemExit(
            'The Dagster UI needs dagster-webserver: pip install "octogen-dagster[ui]"'
        )
    for each in (3000, 0) if port is None else (port,):
        try:
            with socket.create_server((HOST, each)) as server:
                found: int = server.getsockname()[1]
                return found
        except OSError as error:
            reason = error.strerror
    raise SystemExit(
        f"Port {port} cannot be used for the Dagster UI ({reason}). Choose another one, or leave "
        "the option --port out."
    )


def runner(environment: Mapping[str, str]) -> str:
    """What comes before a command where this one was started: that of uv, or nothing."""
    uv = environment.get("UV")  # set by `uv run`
    if not uv:
        return ""
    return f"{os.path.relpath(uv) if Path(uv).is_relative_to(Path.cwd()) else 'uv'} run --no-sync "
