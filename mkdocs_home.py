"""Hooks of mkdocs: README.md is the home page, and the menu has a guide for each destination."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

_LINK = re.compile(r"(?<=\]\()(?!https?:|#)[^)]+")
_SOURCE = "https://github.com/octogen-ai/octogen-dagster/blob/main/"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Expand patterns such as `to-*.md` in the menu."""
    for section in config.nav or ():
        for title, pages in section.items():
            if isinstance(pages, list):
                section[title] = [found for page in pages for found in _found(config, page)]
    return config


def _found(config: MkDocsConfig, page: object) -> Sequence[object]:
    if not isinstance(page, str):
        return [page]  # with a title
    return sorted(path.name for path in Path(config.docs_dir).glob(page))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the home page to the files of `docs/`."""
    from mkdocs.structure.files import File

    readme = Path(config.config_file_path).with_name("README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=home_page(readme)))
    return files


def home_page(readme: str) -> str:
    """Return README with the links that it needs as a page of `docs/`."""
    return _LINK.sub(lambda link: _moved(link[0]), readme)


def _moved(link: str) -> str:
    return link.removeprefix("docs/") if link.startswith("docs/") else _SOURCE + link
