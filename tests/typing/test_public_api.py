"""`public_api.py` is complete: mypy can only check the names that it uses."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import octogen_dagster
from octogen_dagster import errors
from tests.typing import public_api

TREE = ast.parse(Path(public_api.__file__).read_text())


def read_names() -> Iterator[str]:
    """The names and attributes that the file reads; an import alone is not a use."""
    for node in ast.walk(TREE):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def imported_names() -> set[str]:
    return {
        alias.name
        for node in ast.walk(TREE)
        if isinstance(node, ast.ImportFrom) and node.module == "octogen_dagster"
        for alias in node.names
    }


def test_every_public_name_is_imported_from_the_top() -> None:
    assert imported_names() == set(octogen_dagster.__all__)


def test_every_public_name_is_used() -> None:
    assert set(octogen_dagster.__all__) <= set(read_names())


def test_every_error_is_used() -> None:
    hierarchy = {
        name
        for name, member in inspect.getmembers(errors, inspect.isclass)
        if issubclass(member, errors.OctogenError)
    }
    assert len(hierarchy) > 20
    assert hierarchy <= set(read_names())


def test_the_definitions_are_valid() -> None:
    for definitions in (public_api.snapshot_definitions(), public_api.listing_definitions()):
        assert definitions.get_repository_def().get_all_jobs()
