"""Executions that are unfinished when the interpreter exits."""

from __future__ import annotations

import subprocess
import sys

UNFINISHED = """
import threading
from octogen_dagster.frames.shutdown import ExitGuard

entered, stopped = threading.Event(), threading.Event()
guard = ExitGuard(stopped.set)

def work():
    with guard:
        entered.set()
        stopped.wait()
        print("stopped", flush=True)

threading.Thread(target=work, daemon=True).start()
entered.wait()
"""

SUSPENDED = """
import atexit

# Handlers run in reverse order, so this one runs after the module's own.
atexit.register(lambda: print("may enter:", guard._lock.acquire(blocking=False)))

from octogen_dagster.frames.shutdown import ExitGuard

guard = ExitGuard(lambda: None)
with guard:
    pass
"""

FINISHED = """
from octogen_dagster.frames.shutdown import ExitGuard

guard = ExitGuard(lambda: print("stopped"))
with guard:
    pass
guard.finish()
"""


def output_of(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    ).stdout


def test_a_step_under_way_is_stopped() -> None:
    assert output_of(UNFINISHED) == "stopped\n"


def test_no_step_begins_at_exit() -> None:
    assert output_of(SUSPENDED) == "may enter: False\n"


def test_a_finished_execution_is_not_stopped() -> None:
    assert output_of(FINISHED) == ""
