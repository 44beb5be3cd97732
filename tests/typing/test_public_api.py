"""What mypy checks of a user's code has each public name."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import octogen_dagster
from octogen_dagster import build_product_history_asset, build_products_asset
from tests.docs.blocks import ROOT, typed_blocks
from tests.typing import public_api


def used_names(source: str) -> Iterator[str]:
    """The names and attributes that a file reads; an import alone is not a use."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def test_every_public_name_is_used_in_code_that_mypy_checks() -> None:
    files = [ROOT / "definitions.py", *(ROOT / "examples").rglob("*.py")]
    sources = [path.read_text() for path in [*files, ROOT / "tests/typing/public_api.py"]]
    sources += [block.source for block in typed_blocks()]
    used = {name for source in sources for name in used_names(source)}
    assert {*octogen_dagster.__all__} - used == set()
    assert len(octogen_dagster.__all__) <= 55  # as CONTRIBUTING.md says


def test_the_definitions_are_built() -> None:
    products = build_products_asset("products")
    assert public_api.definitions(build_product_history_asset(products)).assets
    assert public_api.url_list_definitions(products).assets
