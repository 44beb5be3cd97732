"""Tests of the table of roles, which stands in README.md and in deploy/README.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import octogen_dagster
from octogen_dagster.doctor.google_project import QUERYING, SUBSCRIBING

PACKAGE = Path(octogen_dagster.__file__).parent
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DEPLOY = (ROOT / "deploy/README.md").read_text()
ROLE = re.compile(r"roles/[a-zA-Z]+\.[a-zA-Z]+")
API = re.compile(r"\b[a-z]+\.googleapis\.com\b")
NAMED = sorted({role for path in PACKAGE.rglob("*.py") for role in ROLE.findall(path.read_text())})
"""The roles that messages and docstrings name."""


def table(text: str) -> list[str]:
    """The rows of the table of roles."""
    lines = text.splitlines()
    start = lines.index("| for | who | needs | on |")
    end = next(i for i, line in enumerate(lines) if i > start and not line.startswith("|"))
    return lines[start:end]


def commands(text: str) -> str:
    """The shell lines that grant the roles."""
    block = next(block for block in text.split("```") if "services enable" in block)
    return re.sub(r"\\\n\s+", "", block)


def test_both_documents_have_the_same_table_and_commands() -> None:
    assert table(README) == table(DEPLOY)
    assert commands(README) == commands(DEPLOY)


@pytest.mark.parametrize("role", NAMED)
def test_a_role_that_the_code_names_is_in_the_table(role: str) -> None:
    assert any(f"`{role}`" in row for row in table(README))


@pytest.mark.parametrize("role", sorted({*SUBSCRIBING.values(), *QUERYING.values()}))
def test_a_role_that_the_doctor_asks_for_is_granted_on_the_project(role: str) -> None:
    loop = re.search(r"for role in ([\w. ]+)", commands(README))
    assert loop
    assert role.removeprefix("roles/") in loop[1].split()


@pytest.mark.parametrize("role", sorted(set(ROLE.findall("\n".join(table(README))))))
def test_a_role_of_the_table_is_granted_by_a_command_or_by_somebody_else(role: str) -> None:
    granted = commands(README)
    by_others = any(f"`{role}`, which" in row for row in table(README))
    assert by_others != (role.removeprefix("roles/") in granted)


@pytest.mark.parametrize(
    "api",
    sorted(
        {
            api
            for path in PACKAGE.rglob("*.py")
            for api in API.findall(path.read_text())
            if api not in {"www.googleapis.com", "console.googleapis.com"}
        }
    ),
)
def test_an_api_that_the_code_calls_is_enabled(api: str) -> None:
    assert api in commands(README)
