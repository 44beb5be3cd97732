"""The processes of a local Dagster: its daemon, its code server and, if wanted, its UI."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from octogen_dagster.errors import MissingPackageError
from octogen_dagster.settings import require_extras

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

HOST = "127.0.0.1"
_START_TIMEOUT = 120
_STOP_TIMEOUT = 15
_LINES_OF_LOG = 20
_ENVIRONMENT = {
    "PYTHONWARNINGS": "ignore",
    # A busy machine may need more than a minute to start the process of a run.
    "DAGSTER_GRPC_TIMEOUT_SECONDS": "180",
}


class Services:
    """The running processes of a local Dagster.

    Args:
        process: The process that started the others, the leader of their group.
        log: The file that has what they print.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def require_running(self) -> None:
        """Check that the processes run.

        Raises:
            SystemExit: They ended. The message has the last lines of their log.
        """
        if self._process.poll() is not None:
            lines = self._log.read_text(errors="replace").splitlines()[-_LINES_OF_LOG:]
            raise SystemExit(
                "\n".join([*lines, f"Dagster ended by itself. Its whole log is {self._log}."])
            )

    def wait_for_ui(self, url: str) -> None:
        """Wait until the UI responds.

        Raises:
            SystemExit: The processes ended, or it does not respond within two minutes.
        """
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            self.require_running()
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                urllib.request.urlopen(f"{url}/server_info", timeout=5).close()  # noqa: S310 - ours
                return
            time.sleep(0.2)
        raise SystemExit(
            f"The Dagster UI did not start within {_START_TIMEOUT} s. The reason may be in "
            f"{self._log}."
        )

    def wait(self) -> None:
        """Wait until the processes end by themselves.

        Raises:
            SystemExit: They ended. The message has the last lines of their log.
        """
        self._process.wait()
        self.require_running()

    def stop(self) -> None:
        """End the processes, and their children with them."""
        try:
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_TIMEOUT)
        finally:  # also if Ctrl-C is pressed twice
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@contextlib.contextmanager
def running_services(
    module: str, environment: Mapping[str, str], log: Path, *, ui_port: int | None
) -> Iterator[Services]:
    """Run Dagster with a code location until the block ends.

    Args:
        module: The module of the code location.
        environment: Environment variables beside those of this process.
        log: The file for what the processes print.
        ui_port: The port of the UI; None for no UI.
    """
    if ui_port is None:
        command = ["dagster._daemon", "run"]
    else:
        command = ["dagster", "dev", "-h", HOST, "-p", str(ui_port)]
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", *command, "-m", module, "--log-level", "warning"],
            env={**os.environ, **_ENVIRONMENT, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C ends them through `stop` alone
        )
    services = Services(process, log)
    watcher = _watch(process.pid)
    try:
        yield services
    finally:
        services.stop()
        watcher.kill()
        watcher.wait()


def _watch(group: int) -> subprocess.Popen[bytes]:
    """Start a shell that kills a group of processes when this process ends, however it ends."""
    return subprocess.Popen(  # noqa: S603 - our own command
        # The pipe ends with this process, since no other one has its writing end.
        ["/bin/sh", "-c", 'cat; kill -s KILL -- "-$0"', str(group)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def require_ui(port: int) -> None:
    """Check that the UI is installed and can have a port.

    Raises:
        SystemExit: It is not installed, or another program has the port.
    """
    try:
        require_extras("The Dagster UI", "ui")
    except MissingPackageError as error:
        raise SystemExit(str(error)) from error
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise SystemExit(
                f"Port {port} cannot be used for the Dagster UI ({error.strerror}). Choose another "
                f"one: octogen-dagster demo --ui --port {port + 1}"
            ) from error
