"""Blocks of the documents that are no code: settings are parsed, and each block says what it is."""

from __future__ import annotations

import re

import tomli
import yaml

from tests.docs.blocks import BLOCKS, Block, each

LANGUAGES = {"ini", "mermaid", "python", "sh", "sql", "text", "toml", "yaml"}


def test_the_documents_have_blocks() -> None:
    assert {"python", "sh", "yaml"} <= {block.language for block in BLOCKS}


def test_each_block_says_its_language() -> None:
    assert [block.name for block in BLOCKS if block.language not in LANGUAGES] == []


@each("ini")
def test_a_block_of_variables_has_a_value_in_each_line(block: Block) -> None:
    assert all(re.fullmatch(r"[A-Z_]+=\S+", line) for line in block.source.splitlines())


@each("toml")
def test_a_block_of_toml_is_toml(block: Block) -> None:
    assert tomli.loads(block.source)


@each("yaml")
def test_a_block_of_yaml_is_yaml(block: Block) -> None:
    assert yaml.safe_load(block.source)
