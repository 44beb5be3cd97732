"""Blocks of the documents that are no code: settings are parsed, and each block says what it is."""

from __future__ import annotations

import re

import yaml

from octogen_dagster.sandbox import DEFAULT_API_KEY, DEFAULT_BASE_URL
from tests.docs.blocks import BLOCKS, Block, each

WIDTH = 112
"""The characters of a line of code that a page has room for in a window of 1,500 pixels."""
LANGUAGES = {"ini", "mermaid", "python", "sh", "sql", "text", "yaml"}


def test_each_block_says_its_language() -> None:
    assert [block.name for block in BLOCKS if block.language not in LANGUAGES] == []


def test_no_line_of_a_page_is_cut_off() -> None:
    lines = [(block, line) for block in BLOCKS for line in block.source.splitlines()]
    pages = [(block.name, line) for block, line in lines if block.page.startswith("docs/")]
    assert [each for each in pages if len(each[1]) > WIDTH] == []


@each("ini")
def test_a_block_of_variables_has_a_value_in_each_line(block: Block) -> None:
    assert all(re.fullmatch(r"[A-Za-z_]+=\S+", line) for line in block.source.splitlines())


def test_a_block_that_points_to_a_sandbox_has_its_key() -> None:
    wrong = [
        block.name
        for block in BLOCKS
        if DEFAULT_BASE_URL in block.source and f"={DEFAULT_API_KEY}\n" not in block.source
    ]
    assert wrong == []


@each("yaml")
def test_a_block_of_yaml_is_yaml(block: Block) -> None:
    assert yaml.safe_load(block.source)
