"""The processes of a local Dagster: their port, their log and their end."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from octogen_dagster.demo.services import Services, require_ui


def start(folder: Path, program: str, *descriptors: int) -> Services:
    log = folder / "dagster.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=output,
            stderr=output,
            pass_fds=descriptors,
            start_new_session=True,
        )
    return Services(process, log)


def test_a_port_that_is_taken_is_told_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as caught:
            require_ui(port)
    assert str(caught.value) == (
        f"Port {port} cannot be used for the Dagster UI (Address already in use). Choose another "
        f"one: octogen-dagster demo --ui --port {port + 1}"
    )
    require_ui(port)


def test_a_ui_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octogen_dagster.settings._is_installed", lambda _package: False)
    with pytest.raises(SystemExit) as caught:
        require_ui(3000)
    assert str(caught.value) == (
        'The Dagster UI needs dagster-webserver: pip install "octogen-dagster[ui]"'
    )


def test_a_dagster_that_ended_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    services = start(tmp_path, "print('The port is taken.'); raise SystemExit(1)")
    with pytest.raises(SystemExit) as caught:
        services.wait()
    assert str(caught.value) == (
        f"The port is taken.\nDagster ended by itself. Its whole log is {tmp_path / 'dagster.log'}."
    )


def test_a_dagster_that_ends_before_its_ui_responds_is_told(tmp_path: Path) -> None:
    services = start(tmp_path, "raise SystemExit(1)")
    with pytest.raises(SystemExit, match="Dagster ended by itself"):
        services.wait_for_ui("http://127.0.0.1:9")


def test_the_children_end_with_their_parent(tmp_path: Path) -> None:
    reader, writer = os.pipe()  # read to its end once no process has the writer
    child = "import time; print('ready', flush=True); time.sleep(600)"
    services = start(
        tmp_path,
        "import subprocess, sys\n"
        f"command = [sys.executable, '-c', {child!r}]\n"
        "child = subprocess.Popen(command, stdout=subprocess.PIPE, close_fds=False)\n"
        "child.stdout.readline()",
        writer,
    )
    os.close(writer)
    with pytest.raises(SystemExit):
        services.wait()
    assert not select.select([reader], [], [], 0)[0]
    services.stop()
    assert os.read(reader, 1) == b""
    os.close(reader)
