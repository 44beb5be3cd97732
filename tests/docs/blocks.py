"""The blocks of code in README.md and in the pages of `docs/`.

`python -m tests.docs.blocks FOLDER` writes those of Python to a folder, where mypy checks them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from sybil import Document
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

ROOT = Path(__file__).parents[2]
README = "README.md"
IN_GATE = "docs/alerts.md"
"""The page whose blocks the gate runs: it has Python, YAML and commands."""
GUIDES = [
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("to-*.md"))),
    "docs/notify-slack.md",
    "docs/query-in-bigquery.md",
]
"""The pages that tests/docs/test_guides.py follows from their first block to their last."""
FOLLOWED = ("sh", "yaml", "python")
PAGES = [ROOT / README, *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = RawFencedCodeBlockLexer(
    re.compile(r'(?P<language>\w*)(?: title="(?P<title>[^"]+)")?(?P<rest>.*)\n')
)
OF_READERS = (
    "# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, "
    "disable-error-code=import-untyped\n"
)
"""How mypy checks a block: whoever pastes it does not annotate all, and has other stubs."""
NOT_RUN = re.compile(r"<!-- (?:not run|run by): (.+) -->\s*\Z")


class Block(NamedTuple):
    """A block of code.

    Attributes:
        page: The path of its page in the repository.
        line: The line of the page on which it begins.
        language: What the fence says, such as `python`.
        title: The name of the file that it shows; empty if it has none.
        source: The code.
        not_run: The reason that the page gives for not running it here; empty if it is run.
    """

    page: str
    line: int
    language: str
    title: str
    source: str
    not_run: str

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"


def _read(page: Path) -> Iterator[Block]:
    document = Document(page.read_text(), str(page))
    for region in FENCE(document):
        before = document.text[: region.start]
        not_run = NOT_RUN.search(before)
        yield Block(
            page=str(page.relative_to(ROOT)),
            line=before.count("\n") + 1,
            language=region.lexemes["language"] + region.lexemes["rest"],
            title=region.lexemes["title"] or "",
            source=region.lexemes["source"],
            not_run=not_run[1] if not_run else "",
        )


BLOCKS = [block for page in PAGES for block in _read(page)]


def destinations() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each destination in a guide's YAML, with the guide's page."""
    for each in BLOCKS:
        if each.page.startswith("docs/to-") and each.language == "yaml":
            written = yaml.safe_load(each.source)
            [search] = written.get("attributes", {}).get("searches", [{"tables": written}])
            yield each.page, search["tables"]["destination"]


GUIDE_OF = {kind: page for page, destination in destinations() for kind in destination}
"""The page of the guide for each kind of destination."""


def each(language: str, having: str = "") -> pytest.MarkDecorator:
    """Parametrize a test by the blocks in a language that are run and have a text in them.

    The commands and files of a guide belong together: a test of their own follows them.
    Those of `docs/` are slow, and the gate runs one page: a hundred processes run Dagster for them.
    """
    chosen = [
        block
        for block in BLOCKS
        if block.language == language and having in block.source and not block.not_run
        if not (block.page in GUIDES and language in FOLLOWED)
    ]
    return pytest.mark.parametrize(
        "block", [pytest.param(block, id=block.name, marks=marks(block.page)) for block in chosen]
    )


def marks(page: str) -> list[pytest.MarkDecorator]:
    """The markers of a test that runs Dagster for a block of a page."""
    if page == README:
        return []
    return [pytest.mark.slow] if page == IN_GATE else [pytest.mark.slow, pytest.mark.long]


def typed_blocks() -> list[Block]:
    """The blocks of Python that are whole files."""
    return [block for block in BLOCKS if block.language == "python" and not block.not_run]


if __name__ == "__main__":
    for block in typed_blocks():
        name = re.sub(r"\W", "_", block.name)
        (Path(sys.argv[1]) / f"{name}.py").write_text(OF_READERS + block.source)
