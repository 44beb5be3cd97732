"""What a page shows below a deployment in YAML is what `dg list defs` says of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import BLOCKS, Block, marks
from tests.docs.readers import list_definitions
from tests.docs.test_code import TIMEOUT
from tests.forked import processes

TITLE = "dg list defs"
"""The title of a block that shows the keys of definitions, and what each asset follows."""


def listings() -> Iterator[Any]:
    """Yield each such block with the deployment above it."""
    deployment = BLOCKS[0]
    for block in BLOCKS:
        if block.title == "defs.yaml":
            deployment = block
        elif block.title == TITLE:
            assert deployment.page == block.page, f"{block.name} has no deployment above it"
            yield pytest.param(deployment, block, id=block.name, marks=marks(block.page))


def sections(listing: str) -> dict[str, dict[str, str]]:
    """The keys of each section, with what is written behind them."""
    section, found = "", dict[str, dict[str, str]]()
    for line in listing.splitlines():
        if line.startswith(" "):
            key, _, rest = line.strip().partition(" ")
            found[section][key] = rest.strip()
        else:
            section = line
            found[section] = {}
    return found


@pytest.mark.parametrize(("deployment", "shown"), [*listings()])
def test_dg_lists_what_the_page_shows(deployment: Block, shown: Block, tmp_path: Path) -> None:
    variables = re.findall(r"env\.([A-Z_]+)", deployment.source)
    file = tmp_path / "defs.yaml"
    file.write_text(deployment.source)
    process = processes.Process(target=list_definitions, args=(file, dict.fromkeys(variables, "x")))
    process.start()
    process.join(TIMEOUT)
    process.kill()
    assert process.exitcode == 0, (tmp_path / "output.txt").read_text()
    defs = json.loads((tmp_path / "defs.json").read_text())
    listed = {
        "Assets": {
            each["asset_key"]: ", ".join(each["dependency_keys"]) for each in defs["assets"]
        },
        "Asset Checks": {each["key"]: "" for each in defs["asset_checks"]},
        "Schedules": {each["name"]: "" for each in defs["schedules"]},
        "Sensors": {each["name"]: "" for each in defs["sensors"]},
    }
    told = sections(shown.source)
    listed["Assets"].pop("articles")  # the project's own table, which some pages name
    assert told == {section: listed[section] for section in told}
