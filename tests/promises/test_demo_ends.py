"""Whatever ends the demo ends all of its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="it looks for processes in /proc"),
]

TIMEOUT = 150.0
IGNORE_HANGUP = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
TAKE_TERMINAL = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"


def start(
    folder: Path, terminal: int = subprocess.DEVNULL, before: str = ""
) -> subprocess.Popen[bytes]:
    """Start the demo in a session of its own, and wait until Dagster and its code server run."""
    program = f"{before}\nfrom octogen_dagster.cli.main import main\nmain()"
    demo = subprocess.Popen(
        [sys.executable, "-c", program, "demo", "--catalogs", "1", "--products", "300"],
        cwd=folder,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    try:
        wait_until(lambda: len(processes_of(folder)) > 1 or demo.poll() is not None)
        assert demo.poll() is None
    except BaseException:
        demo.kill()
        raise
    return demo


def processes_of(folder: Path) -> list[int]:
    """The processes of Dagster whose environment names a folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(folder).encode() in place.read_bytes():
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def check_that_all_end(demo: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until the demo and its processes ended; kill what is left."""
    try:
        demo.wait(TIMEOUT)
        wait_until(lambda: not processes_of(folder))
    finally:
        demo.kill()
        for process in processes_of(folder):
            os.kill(process, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_all_processes(number: signal.Signals, tmp_path: Path) -> None:
    demo = start(tmp_path)
    demo.send_signal(number)
    check_that_all_end(demo, tmp_path)


def test_closing_the_terminal_ends_all_processes(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    demo = start(tmp_path, theirs, TAKE_TERMINAL)
    os.close(theirs)
    os.close(ours)
    check_that_all_end(demo, tmp_path)


def test_nohup_lets_it_outlive_the_terminal(tmp_path: Path) -> None:
    demo = start(tmp_path, before=IGNORE_HANGUP)
    status = Path(f"/proc/{demo.pid}/status").read_text()
    ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
    demo.send_signal(signal.SIGTERM)
    check_that_all_end(demo, tmp_path)
    assert ignored & 1 << signal.SIGHUP - 1
