"""Tests of the table of roles in docs/roles.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import octogen_dagster
from octogen_dagster.doctor.google_project import QUERYING, SUBSCRIBING

PACKAGE = Path(octogen_dagster.__file__).parent
ROOT = Path(__file__).parent.parent
ROLES = (ROOT / "docs/roles.md").read_text()
ROLE = re.compile(r"roles/[a-zA-Z]+\.[a-zA-Z]+")
API = re.compile(r"\b[a-z]+\.googleapis\.com\b")
NAMED = sorted({role for path in PACKAGE.rglob("*.py") for role in ROLE.findall(path.read_text())})
"""The roles that messages and docstrings name."""


TABLE = [line for line in ROLES.splitlines() if line.startswith("|")]
COMMANDS = re.sub(
    r"\\\n\s+", "", next(block for block in ROLES.split("```") if "services enable" in block)
)
"""The shell lines that grant the roles."""


@pytest.mark.parametrize("role", NAMED)
def test_a_role_that_the_code_names_is_in_the_table(role: str) -> None:
    assert any(f"`{role}`" in row for row in TABLE)


@pytest.mark.parametrize("role", sorted({*SUBSCRIBING.values(), *QUERYING.values()}))
def test_a_role_that_the_doctor_asks_for_is_granted_on_the_project(role: str) -> None:
    loop = re.search(r"for role in ([\w. ]+)", COMMANDS)
    assert loop
    assert role.removeprefix("roles/") in loop[1].split()


@pytest.mark.parametrize("role", sorted(set(ROLE.findall("\n".join(TABLE)))))
def test_a_role_of_the_table_is_granted_by_a_command_or_by_somebody_else(role: str) -> None:
    by_others = any(f"`{role}`, which" in row for row in TABLE)
    assert by_others != (role.removeprefix("roles/") in COMMANDS)


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
    assert api in COMMANDS
