"""The arrows of the design go one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import octogen_dagster

PACKAGE = Path(octogen_dagster.__file__).parent
FORBIDDEN = {
    "api": ("dagster", "polars", "google", "octogen_dagster"),
    "frames": ("dagster", "google", "octogen_dagster"),
    "sharing": ("dagster", "polars", "octogen_dagster"),
    "sandbox": ("dagster", "polars", "octogen_dagster"),
}
ALLOWED = {
    "api": ("octogen_dagster.api", "octogen_dagster.errors"),
    "frames": (
        "octogen_dagster.api",
        "octogen_dagster.errors",
        "octogen_dagster.files",
        "octogen_dagster.frames",
    ),
    "sharing": (
        "octogen_dagster.api",
        "octogen_dagster.control_plane",
        "octogen_dagster.errors",
        "octogen_dagster.sharing",
    ),
    "sandbox": ("octogen_dagster.sandbox",),
}


def imports(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            names.append(node.module or "")
    return names


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_nothing_from_above(room: str) -> None:
    files = sorted((PACKAGE / room).glob("*.py"))
    assert files
    wrong = {
        f"{path.name}: {name}"
        for path in files
        for name in imports(path)
        if within(name, FORBIDDEN[room]) and not within(name, ALLOWED[room])
    }
    assert not wrong


def test_importing_the_package_leaves_the_heavy_libraries_alone() -> None:
    program = (
        "import sys, octogen_dagster; heavy = {'google.cloud', 'dagster_gcp', 'mcp', 'pandas', "
        "'pyarrow', 'uvicorn', 'starlette'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_public_names_are_there() -> None:
    assert sorted(octogen_dagster.__all__) == sorted(set(octogen_dagster.__all__))
    for name in octogen_dagster.__all__:
        assert getattr(octogen_dagster, name) is not None
