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

    def __init__(self, process: subprocess.Popen[bytes], log: Path, port: int | None) -> None:
        self.url = f"http://{HOST}:{port}"
        self.log = log
        self._process = process

    def check(self) -> None:
        """Exit if it has ended."""
        if self._process.poll() is not None:
            raise SystemExit(f"Dagster ended by itself. Its log is {self.log}.")

    def wait_for_ui(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            self.check()
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.url}/server_info", timeout=5).close()  # noqa: S310
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
def dagster_process(log: Path, ui_port: int | None) -> Iterator[DagsterProcess]:
    """Run a daemon until the block ends, or until this process does, however it ends."""
    command = ["dagster._daemon", "run"]
    if ui_port is not None:
        command = ["dagster", "dev", "-h", HOST, "-p", str(ui_port)]
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", *command, "-m", DEFINITIONS, "--log-level", "warning"],
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    # In a session of its own: a Ctrl-C in the terminal must not end it before the daemon.
    watcher = subprocess.Popen(  # noqa: S603 - its pipe ends with this process
        ["/bin/sh", "-c", _END_THE_GROUP, str(process.pid)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield DagsterProcess(process, log, ui_port)
    finally:
        watcher.communicate()
        process.wait()


def require_ui(port: int) -> None:
    """Refuse a UI that is not installed and a port that is taken, before anything is written."""
    if not importlib.util.find_spec("dagster_webserver"):
        raise SystemExit(
            'The Dagster UI needs dagster-webserver: pip install "octogen-dagster[ui]"'
        )
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        raise SystemExit(
            f"Port {port} cannot be used for the Dagster UI ({error.strerror}). Choose another "
            f"one: octogen-dagster demo --ui --port {port + 1}"
        ) from error


def ui_command(environment: Mapping[str, str]) -> str:
    """The command that shows the demo in the UI: of a clone run by uv, or where it is installed."""
    clone = Path(__file__).parents[2]
    uv = environment.get("UV")  # set by `uv run`
    if uv and (clone / "pyproject.toml").exists():
        uv = os.path.relpath(uv) if Path(uv).is_relative_to(Path.cwd()) else "uv"
        return (
            f"{uv} run --no-dev --extra sandbox --extra duckdb --extra ui octogen-dagster demo --ui"
        )
    if importlib.util.find_spec("dagster_webserver"):
        return "octogen-dagster demo --ui"
    return 'pip install "octogen-dagster[ui]" && octogen-dagster demo --ui'
