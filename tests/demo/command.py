"""The command `octogen-dagster demo` in a process of its own."""

from __future__ import annotations

import os
import socket
import sys

# Google's packages warn on standard error of a Python that they will not support much longer.
PYTHON = [sys.executable, "-W", "ignore::FutureWarning", "-c"]
PROGRAM = "from octogen_dagster.cli.main import main; main(['demo', *sys.argv[1:]])"


def command(*options: str, before: str = "") -> list[str]:
    """The command `octogen-dagster demo` with one catalog.

    Args:
        options: More options. They go before those given here.
        before: Code to run in the process before the command.
    """
    small = ("--catalogs", "1", "--products", "300")
    return [*PYTHON, f"import sys; {before}{PROGRAM}", *small, *options]


def environment() -> dict[str, str]:
    """The environment of the command, with a browser that shows nothing."""
    return {**os.environ, "COLUMNS": "200", "BROWSER": "true"}


def free_port() -> int:
    """A port of the loopback interface that nothing uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
