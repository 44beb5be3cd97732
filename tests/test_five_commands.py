"""The README's five commands make a snapshot, in a project that nobody edited; the UI shows how."""

from __future__ import annotations

import importlib.metadata
import json
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from filelock import FileLock

from tests.dg_project import ROOT, DgProject
from tests.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COMMANDS = re.compile(r"^```sh\n(uvx create-dagster .*?)^```$", re.DOTALL | re.MULTILINE)
RUNNER = "set -eu\ntrap 'kill $(jobs -p); wait' EXIT\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> DgProject:
    """The project that the commands made, with the wheel in place of the published package."""
    folder = tmp_path_factory.mktemp("five-commands")
    constraints = folder / "constraints.txt"
    constraints.write_text(f"create-dagster=={importlib.metadata.version('dagster')}\n")
    found = COMMANDS.search((ROOT / "README.md").read_text())
    assert found
    commands = found[1]
    assert len(commands.splitlines()) == 5
    with FileLock(wheel.with_name("port-of-the-sandbox.lock")):
        DgProject(folder).run(
            "bash",
            "-c",
            RUNNER + commands,
            UV_CONSTRAINT=str(constraints),
            UV_FIND_LINKS=str(wheel.parent),
        )
    return DgProject(folder / "my_shops")


@pytest.mark.long
def test_the_snapshot_is_there(project: DgProject) -> None:
    boots = pl.read_parquet(project.root / "snapshots" / "boots.parquet")
    assert boots.height == 50  # all of five shops, read as one page of up to 100
    assert boots["uuid"].is_unique().all()


@pytest.mark.long
def test_dg_checks_and_lists_the_scaffolded_project(project: DgProject) -> None:
    assert "All definitions loaded successfully." in project.run("uv", "run", "dg", "check", "defs")
    listed = project.run("uv", "run", "dg", "list", "defs")
    assert all(name in listed for name in ("boots", "octogen_products", "octogen_catalogs"))


QUERY = """{
    assetNodeOrError(assetKey: {path: ["boots"]}) {
        ... on AssetNode { assetMaterializations { runId } }
    }
    runsOrError { ... on Runs { results { runId status } } }
}"""


def asked(url: str, query: str) -> dict[str, Any]:
    """The data that Dagster's UI gets for a query, once it answers."""
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    deadline = time.monotonic() + 200
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                data: dict[str, Any] = json.load(answer)["data"]
                return data
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.5)


@pytest.mark.long
def test_the_ui_shows_the_run_that_made_it(project: DgProject) -> None:
    port = str(free_port())
    with project.running("uv", "run", "dg", "dev", "--port", port):
        shown = asked(f"http://127.0.0.1:{port}/graphql", QUERY)
    [run] = shown["runsOrError"]["results"]
    assert run["status"] == "SUCCESS"
    assert shown["assetNodeOrError"] == {"assetMaterializations": [{"runId": run["runId"]}]}
