"""The messages that docs/troubleshooting.md quotes are texts of the package."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator

from tests.docs.blocks import BLOCKS, ROOT

QUOTES = [
    quote
    for block in BLOCKS
    if block.page == "docs/troubleshooting.md" and block.language == "text"
    for quote in block.source.splitlines()
]


def texts() -> Iterator[str]:
    """The strings of the package, with … for what is filled in."""
    for file in (ROOT / "octogen_dagster").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "…"
                    for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub("%[sdr]", "…", node.value)


def test_a_quoted_message_is_in_the_package() -> None:
    package = "\n".join(texts())
    for quote in QUOTES:
        assert re.search(".*".join(map(re.escape, quote.split("…"))), package), quote


def test_the_page_names_each_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / "docs/troubleshooting.md").read_text()
    *_, missing = page.partition("### A package is missing")
    assert [name for name in project["optional-dependencies"] if f"`{name}`" not in missing] == []
