"""Processes that refresh the same token file at the same moment."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr

from octogen_dagster.control_plane.secret_files import SecretFile
from octogen_dagster.sandbox.hub.server import Hub

REFRESHES = 500
PROGRAM = """
import sys
from octogen_dagster.control_plane.secret_files import SecretFile
from octogen_dagster.control_plane.tokens import RefreshedToken

path, client_id, endpoint, refreshes = sys.argv[1:]
tokens = RefreshedToken(SecretFile(path, "refresh token"), lambda: client_id, endpoint)
print("ready", flush=True)
sys.stdin.readline()
token = None
for _ in range(int(refreshes)):
    token = tokens.token(refused=token)
print("done", flush=True)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory, where there is such a folder: this is about locks, not about the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


def test_two_processes_never_lose_the_token(hub: Hub, folder: Path) -> None:
    hub.settings.rotate_refresh_tokens = True
    file = SecretFile(folder / "refresh", "refresh token")
    file.path.write_text(hub.refresh_token)
    command = [sys.executable, "-c", PROGRAM, str(file.path), hub.client_id, hub.token_endpoint]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [*command, str(REFRESHES)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(2)
        ]
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            assert process.communicate(timeout=100) == ("done\n", "")

    outcomes = [call.outcome for call in hub.calls]
    assert outcomes == ["OK"] * (2 * REFRESHES)
    assert file.read() == SecretStr(hub.refresh_token)
    assert sorted(path.name for path in folder.iterdir()) == ["refresh", "refresh.lock"]
