"""The Dagster processes that the demo runs: a daemon and, optionally, the UI."""

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
"""A shell script that ends a process group when the script's standard input closes."""


class DagsterProcess:
    """A Dagster process and its log file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.log = log
        self._process = process

    def check(self) -> None:
        """Exit if the process has ended."""
        if self._process.poll() is not None:
            raise SystemExit(f"Dagster exited unexpectedly. See {self.log}.")

    def wait_for_ui(self, url: str) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            self.check()
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/server_info", timeout=5).close()  # noqa: S310
                return
            time.sleep(0.2)
        raise SystemExit(f"The Dagster UI did not start. See {self.log}.")

    def wait(self) -> NoReturn:
        """Wait until the process exits.

        This polls, because signals no longer interrupt a wait after a Polars query.
        """
        while True:
            self.check()
            time.sleep(0.5)


@contextlib.contextmanager
def dagster_process(log: Path, *command: str) -> Iterator[DagsterProcess]:
    """Run a Dagster module until the block ends.

    If this process ends, even if it is killed, the module ends, too.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", *command, "-m", DEFINITIONS, "--log-level", "warning"],
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    # In its own session, so that Ctrl-C in the terminal does not end it before Dagster.
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
    """Return the given port. The default is 3000, or a free port if 3000 is in use.

    If the requested port cannot be used, the command exits before it writes anything.
    """
    if not importlib.util.find_spec("dagster_webserver"):
        raise SystemExit(
            'The Dagster UI requires dagster-webserver. Add "octogen-dagster[ui]" to the '
            "project's dependencies."
        )
    for each in (3000, 0) if port is None else (port,):
        try:
            with socket.create_server((HOST, each)) as server:
                found: int = server.getsockname()[1]
                return found
        except OSError as error:
            reason = error.strerror
    raise SystemExit(
        f"The Dagster UI cannot use port {port} ({reason}). Choose another port, or omit --port."
    )


def runner(environment: Mapping[str, str]) -> str:
    """Return the prefix for printed commands. If uv started the demo, the prefix is `uv run`."""
    uv = environment.get("UV")  # set by `uv run`
    if not uv:
        return ""
    return f"{os.path.relpath(uv) if Path(uv).is_relative_to(Path.cwd()) else 'uv'} run --no-sync "
