"""The command `octogen-dagster demo` in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port

# Google's packages warn on standard error of a Python that they will not support much longer.
PYTHON = [sys.executable, "-W", "ignore::FutureWarning", "-c"]
PROGRAM = "from octogen_dagster.cli.main import main; main(['demo', *sys.argv[1:]])"


def command(*options: str) -> list[str]:
    """The command with two small catalogs on two days; `options` count more."""
    small = ("--catalogs", "2", "--products", "200", "--days", "2")
    return [*PYTHON, f"import sys; {PROGRAM}", *small, *options]


def environment() -> dict[str, str]:
    """The environment of the command: a terminal of 80 columns, a browser that shows nothing."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    inherited = {name: value for name, value in os.environ.items() if name != "UV"}
    return {**inherited, "PATH": path, "COLUMNS": "80", "BROWSER": "true"}


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder to its end."""
    return subprocess.run(
        command(*options),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def output_of(command: str, folder: Path) -> str:
    """What a command that the demo printed prints in the folder where the demo was started."""
    return subprocess.check_output(command, shell=True, cwd=folder, env=environment(), text=True)


@contextmanager
def running_ui(
    folder: Path, *options: str
) -> Iterator[tuple[subprocess.Popen[str], str, list[str], str]]:
    """Run the command with a UI: its process, the UI's address, the pages it names, all it says."""
    port = str(free_port())
    with subprocess.Popen(
        command("--ui", "--port", port, *options),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        url = f"http://127.0.0.1:{port}"
        printed, pages = "", []
        try:
            for line in process.stdout:
                printed += line
                if line.startswith(f"  {url}"):
                    pages.append(line.split()[0])
                if "Ctrl-C" in line:
                    break
            assert "Ctrl-C" in printed, printed
            yield process, url, pages, printed
        finally:
            process.kill()


def processes_of(folder: Path) -> list[int]:
    """The processes whose environment names a folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"={folder}/".encode() in place.read_bytes():
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


def ends_all(folder: Path) -> None:
    """Wait until no process is left whose environment names a folder."""
    deadline = time.monotonic() + 120
    while left := processes_of(folder):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
