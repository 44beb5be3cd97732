"""docs/api/ has each public name."""

from __future__ import annotations

import pydoc
import re
from pathlib import Path

import octogen_dagster

PAGES = sorted((Path(__file__).parents[2] / "docs/api").glob("*.md"))
PAGE = "\n".join(page.read_text() for page in PAGES)
ERRORS = {"errors", "MissingAPIKeyError", "OctogenAPIError", "OctogenError"}
"""Public names that the section about `octogen_dagster.errors` has."""


def test_the_reference_has_each_public_name_once() -> None:
    names = re.findall(r"^::: octogen_dagster\.(\w+)$", PAGE, re.MULTILINE)
    assert sorted(names) == sorted({*octogen_dagster.__all__} - ERRORS | {"errors", "tables"})


def test_the_reference_renders_the_package_of_destinations() -> None:
    assert "\n::: octogen_dagster.tables\n" in PAGE


def test_the_reference_has_the_sandbox_and_the_models_of_answers() -> None:
    objects = re.findall(r"^::: (\S+)$", PAGE, re.MULTILINE)
    for name in objects:
        assert pydoc.locate(name) is not None, name
    assert {
        "octogen_dagster.sandbox.server.Sandbox",
        "octogen_dagster.sandbox.faults.Fault",
        "octogen_dagster.sandbox.testing.octogen_sandbox",
        "octogen_dagster.api.models",
    } <= {*objects}
