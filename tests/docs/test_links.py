"""The links of the documents outside of `docs/` lead somewhere; mkdocs checks those within it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mkdocs_home import home_page
from tests.docs.blocks import ROOT

PACKAGE = ROOT / "octogen_dagster"
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PAGES = [
    page
    for pattern in ("*.md", "benchmarks/*.md", "deploy/*.md", "examples/*/*.md")
    for page in sorted(ROOT.glob(pattern))
]


def text_of(page: Path) -> str:
    return FENCED.sub("", page.read_text())


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_each_link_leads_to_a_file_and_a_heading_of_it(page: Path) -> None:
    broken = []
    for link in LINK.findall(text_of(page)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert broken == []


def test_the_home_page_is_the_readme_with_links_that_lead_to_the_same_places() -> None:
    readme = (ROOT / "README.md").read_text()
    home = home_page(readme)
    assert LINK.sub("](", home) == LINK.sub("](", readme)
    for link, there in zip(LINK.findall(readme), LINK.findall(home), strict=True):
        inside = (ROOT / "docs" / there.partition("#")[0]).resolve()
        is_same = inside == ROOT / link.partition("#")[0] or there.endswith(f"/blob/main/{link}")
        assert there == link if "://" in link else is_same


def test_what_the_architecture_names_exists() -> None:
    named = re.findall(r"`([\w/]+/(?:\w+\.\w+)?|\w+\.py)`", text_of(ROOT / "ARCHITECTURE.md"))
    assert len(named) > 40
    missing = [
        name for name in named if not any((place / name).exists() for place in (ROOT, PACKAGE))
    ]
    assert missing == []
