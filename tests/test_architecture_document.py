"""Tests of ARCHITECTURE.md: what it names exists, and no room is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "octogen_dagster"
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
PATH = re.compile(r"[\w./-]*/[\w./-]*|\w+\.(py|md|toml)")
"""A word in backticks that is a path: it has a slash, or the extension of a file of the project."""


def named_paths() -> list[str]:
    words = re.findall(r"`([^`\n]+)`", FENCED.sub("", TEXT))
    return sorted({word for word in words if PATH.fullmatch(word)})


def tree_paths() -> list[Path]:
    """The paths of the tree under "Rooms", relative to the root; depth is four blanks."""
    folders: list[str] = []
    paths: list[Path] = []
    for line in FENCED.findall(TEXT)[0].splitlines()[1:-1]:
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 4
        folders[depth:] = [name]
        paths.append(Path(*folders))
    return paths


def test_the_document_names_many_paths() -> None:
    assert len(named_paths()) > 40
    assert len(tree_paths()) > 20


@pytest.mark.parametrize("path", named_paths())
def test_a_named_path_exists(path: str) -> None:
    found = PACKAGE / path if (PACKAGE / path).exists() else ROOT / path
    assert found.exists()
    assert found.is_dir() == path.endswith("/")


@pytest.mark.parametrize("path", tree_paths(), ids=str)
def test_a_path_of_the_tree_exists(path: Path) -> None:
    assert (ROOT / path).exists()


def test_the_tree_has_every_room() -> None:
    rooms = {
        entry.relative_to(ROOT)
        for entry in PACKAGE.iterdir()
        if (entry / "__init__.py").exists() or entry.suffix == ".py"
    }
    assert rooms <= set(tree_paths())


def test_the_text_describes_every_folder_of_the_package() -> None:
    folders = {f"{entry.parent.name}/" for entry in PACKAGE.glob("*/__init__.py")}
    assert folders - {"cli/", "demo/"} <= set(named_paths())
