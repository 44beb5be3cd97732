"""The commands of the tutorial run one after the other, and print what the page says."""

from __future__ import annotations

import importlib.metadata
import json
import re
import time
import urllib.request
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from filelock import FileLock

from tests.dg_project import DgProject
from tests.docs.blocks import BLOCKS, ROOT
from tests.ports import free_port
from tests.promises.yaml.yaml_projects import load

PAGE = "docs/tutorial.md"
TUTORIAL = [block for block in BLOCKS if block.page == PAGE]
END = "--- end of block {} ---"
QUERY = """{
    assetNodeOrError(assetKey: {path: ["octogen_products"]}) {
        ... on AssetNode { assetMaterializations { runId } }
    }
    runsOrError { ... on Runs { results { runId status } } }
}"""


def script() -> str:
    """All commands and files of the page, in the order of the page."""
    lines = ["set -eu", "trap 'kill $(jobs -p); wait' EXIT"]
    for number, block in enumerate(TUTORIAL):
        if block.language == "sh":
            lines += [block.source, f"echo '{END.format(number)}'"]
        elif block.title:
            lines.append(f"cat > {block.title} <<'END_OF_FILE'\n{block.source}END_OF_FILE")
    return "\n".join(lines)


def missing(shown: str, printed: str) -> list[str]:
    """The lines of a block of output that were not printed, in this order."""
    lines, rest = [], printed
    for line in shown.splitlines():
        pattern = "[^\n]*".join(re.escape(part.strip(" ")) for part in line.split("…"))
        if line.strip() in ("", "…"):
            continue
        if found := re.search(pattern, rest):
            rest = rest[found.end() :]
        else:
            lines.append(line)
    return lines


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


@pytest.mark.parametrize("page", [PAGE, "examples/yaml_project"])
def test_octogen_is_read_once_the_line_of_the_sandbox_is_removed(
    page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [block.source for block in TUTORIAL if block.title.endswith("defs.yaml")]
    if page != PAGE:
        files = [each.read_text() for each in (ROOT / page).rglob("defs.yaml")]
    (file,) = files
    monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", "octo_live_of_mine")
    monkeypatch.delenv("OCTOGEN_BASE_URL", raising=False)
    attributes = yaml.safe_load(file)["attributes"] | {"catalog_source": {"hosts": ["acme.com"]}}
    with load(attributes) as (_, defs), dg.build_resources(dict(defs.resources or {})) as resources:
        assert resources.octogen.base_url is None
        assert resources.octogen.catalog_source.hosts == ("acme.com",)


@pytest.mark.world
@pytest.mark.timeout(1800)
def test_each_command_prints_what_the_page_says_and_the_ui_shows_the_runs(
    tmp_path: Path, wheel: Path
) -> None:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text(f"create-dagster=={importlib.metadata.version('dagster')}\n")
    with FileLock(wheel.with_name("port-of-the-sandbox.lock")):
        printed = DgProject(tmp_path).run(
            "bash",
            "-c",
            script(),
            COLUMNS="100",
            UV_CONSTRAINT=str(constraints),
            UV_FIND_LINKS=str(wheel.parent),
        )
    wrong: dict[str, list[str]] = {}
    for number, (commands, output) in enumerate(pairwise(TUTORIAL)):
        before, _, printed_later = printed.partition(END.format(number))
        if commands.language == "sh" and output.language == "text":
            wrong[output.name] = missing(output.source, before)
        printed = printed_later or printed
    assert not any(wrong.values()), wrong
    port = str(free_port())
    with DgProject(tmp_path / "my_shops").running("uv", "run", "dg", "dev", "--port", port):
        shown = asked(f"http://127.0.0.1:{port}/graphql", QUERY)
    runs = {run["runId"]: run["status"] for run in shown["runsOrError"]["results"]}
    assert set(runs.values()) == {"SUCCESS"}
    made = shown["assetNodeOrError"]["assetMaterializations"]
    assert len(made) == 2, "a day each"
    assert {each["runId"] for each in made} <= set(runs)
