from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from click.testing import CliRunner

from octogen_dagster.cli.main import main

COMMAND = [sys.executable, "-c", "from octogen_dagster.cli.main import main; main()"]


@contextmanager
def serving(*options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A process of `octogen-dagster sandbox`, and the environment that it prints."""
    with subprocess.Popen(
        [*COMMAND, "sandbox", "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            count = 4 if "--generation" in options else 5  # older ones have no list of shops
            lines = [process.stdout.readline() for _ in range(count)]
            exports = dict(
                line.removeprefix("export ").strip().split("=", 1)
                for line in lines
                if line.startswith("export ")
            )
            yield process, exports
        finally:
            process.kill()


def test_the_sandbox_follows_its_options_and_prints_the_environment() -> None:
    older = ("--generation", "seed", "--credit", "0.02", "--unknown-fields")
    options = ("--catalogs", "acme,zen", "--products", "7", "--api-key", "octo_live_mine")
    with serving(*older, *options) as (process, exports):
        assert exports.keys() == {"OCTOGEN_PLATFORM_API_KEY", "OCTO_API_KEY", "OCTOGEN_BASE_URL"}
        assert exports["OCTO_API_KEY"] == "octo_live_mine"
        headers = {"Authorization": f"Bearer {exports['OCTO_API_KEY']}"}
        with httpx.Client(base_url=exports["OCTOGEN_BASE_URL"], headers=headers) as client:
            answer = client.get("/catalogs")
            counts = {entry["catalog"]: entry["productCount"] for entry in answer.json()}
            assert counts == {"acme": 7, "zen": 7}
            first, second = (client.post("/products/search", json={}) for _ in range(2))
        assert (first.status_code, second.status_code) == (200, 402)
        assert "addedWithoutNotice" in first.json()
        process.send_signal(2)
        assert process.wait(timeout=30) == 0


def test_the_sandbox_injects_faults_and_prints_the_hosts_of_its_shops() -> None:
    options = ("--fault", "status=503,times=1", "--catalogs", "2")
    with serving(*options) as (_, exports):
        headers = {"Authorization": f"Bearer {exports['OCTO_API_KEY']}"}
        url = f"{exports['OCTOGEN_BASE_URL']}/catalogs"
        assert [httpx.get(url, headers=headers).status_code for _ in range(2)] == [503, 404]
        hosts = exports["OCTOGEN_SHOPS"].split(",")
        assert len(hosts) == 2
        for host in hosts:
            url = f"{exports['OCTOGEN_BASE_URL']}/domains/{host}"
            assert httpx.get(url, headers=headers).json()["host"] == host


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--fault", "explode"], "explode"),
        (["--credit", "-1"], "-1"),
        (["--generation", "third"], "'third' is not one of"),
        (["--port", "99999"], "99999"),
        (["--products", "-1"], "-1"),
    ],
)
def test_a_wrong_option_is_named(options: list[str], text: str) -> None:
    result = CliRunner().invoke(main, ["sandbox", *options])
    assert result.exit_code == 2
    assert text in result.output


def test_a_port_that_is_taken_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(main, ["sandbox", "--port", port])
    assert result.exit_code == 1
    assert f"The sandbox cannot start: cannot listen on 127.0.0.1:{port}" in result.output
