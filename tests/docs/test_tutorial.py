"""The commands of the tutorial run one after the other, and print what the page says."""

from __future__ import annotations

import importlib.metadata
import re
from itertools import pairwise
from pathlib import Path

import pytest
from filelock import FileLock

from tests.dg_project import DgProject
from tests.docs.blocks import BLOCKS

PAGE = "docs/tutorial.md"
TUTORIAL = [block for block in BLOCKS if block.page == PAGE]
END = "--- end of block {} ---"


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


@pytest.mark.slow
@pytest.mark.world
@pytest.mark.timeout(1800)
def test_each_command_prints_what_the_page_says(tmp_path: Path, wheel: Path) -> None:
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
