"""The arrows between the rooms go one way; ARCHITECTURE.md draws them."""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise, product
from pathlib import Path

import pytest

import octogen_dagster
from octogen_dagster.frames.kinds import TableKind

PACKAGE = Path(octogen_dagster.__file__).parent
TESTS = Path(__file__).parent
GROUND = {"errors", "printable", "masking", "validation", "background", "io_source", "storage"}
CORE = GROUND | {"api", "frames", "assets", "snapshots"}
CAPABILITIES = {"changes", "brands", "details", "history", "alerts", "position"}
"""The rooms of tables that are made of products."""
DOWNSTREAM = CAPABILITIES | {"costs", "checks", "tables"}
"""The rooms that work on published tables."""
HANDLING = {"snapshots", "checks", "tables"}
"""The rooms that handle tables of any kind."""
ARROWS: dict[str, set[str]] = {
    # the ground
    "errors": set(),
    "printable": set(),
    "masking": set(),
    "validation": {"errors"},
    "background": set(),
    "io_source": {"background"},
    "storage": {"errors", "masking", "validation", "background", "io_source"},
    # the core
    "api": GROUND,
    "frames": GROUND | {"api"},
    "reading": GROUND | {"api", "frames"},
    "assets": {"errors", "validation"},
    "snapshots": GROUND | {"api", "frames", "assets"},
    "products": CORE | {"reading"},
    # what follows
    "changes": CORE | {"history"},
    "brands": CORE,
    "details": CORE | {"reading"},
    "history": CORE,
    "history.report": GROUND | {"frames", "history", "alerts", "position"},
    "alerts": CORE | {"history", "position"},
    "position": CORE | {"history"},
    "costs": CORE,
    "checks": CORE,
    "tables": CORE | {"sharing"},
    "schemas": CORE | {"alerts", "brands", "changes", "history"},
    # Google
    "control_plane": GROUND | {"api"},
    "sharing": GROUND | {"control_plane"},
    "bigquery": CORE | {"sharing", "control_plane"},
    "url_lists": CORE | {"products", "bigquery", "sharing"},
    # the doors
    "components": CORE
    | {"products", "alerts", "checks", "position", "tables", "bigquery", "url_lists", "schemas"}
    | {"sandbox"},
    "doctor": CORE | {"products", "tables", "bigquery", "sharing", "control_plane"},
    "cli": GROUND
    | {"api", "history.report", "control_plane", "sharing", "doctor", "demo", "sandbox"},
    "demo": {"sandbox", "schemas", "snapshots", "alerts", "bigquery", "tables"},
    "sandbox": set(),
}
"""What each room may import of the package, besides itself; a room may stand in another one."""

FORBIDDEN_LIBRARIES = {
    "errors": {"dagster", "polars", "google", "mcp"},
    "storage": {"dagster", "google", "mcp"},
    "api": {"dagster", "polars", "google", "mcp"},
    "frames": {"dagster", "google", "mcp"},
    "reading": {"dagster", "google", "mcp"},
    "snapshots": {"google", "mcp", "dagster_gcp"},
    "history.report": {"dagster", "google", "mcp"},
    "control_plane": {"dagster", "polars", "google"},
    "sharing": {"dagster", "polars", "mcp"},
    "cli": {"dagster", "polars", "google", "mcp"},
    "sandbox": {"dagster", "polars"},
}


@functools.cache
def imports(path: Path) -> set[str]:
    """The modules that a file imports, `from package import module` included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            module = node.module or ""
            names.add(module)
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def room_of(module: str) -> str:
    """The innermost room that a module stands in; empty for the package itself."""
    inner = module.partition(".")[2]
    return max((room for room in ARROWS if f"{inner}.".startswith(f"{room}.")), default="", key=len)


@functools.cache
def arrows(module: str) -> set[str]:
    """The modules of the package that a module imports."""
    return {name for name in imports(MODULES[module]) if name in MODULES and "." in name} - {module}


def reached(modules: set[str]) -> set[str]:
    """The modules that these import, directly or not, and themselves; no `__init__.py`."""
    found, left = set[str](), [*modules]
    while left:
        module = left.pop()
        if module not in found:
            found.add(module)
            left += arrows(module)
    return {module for module in found if MODULES[module].name != "__init__.py"}


def test_each_room_has_its_arrows_listed() -> None:
    folders = {module.split(".")[1] for module in MODULES if "." in module}
    assert folders == {room for room in ARROWS if "." not in room}
    assert {room_of(module) for module in MODULES} - {""} == ARROWS.keys()


def drawn() -> list[set[tuple[str, str]]]:
    """The arrows in ARCHITECTURE.md's diagram, each as the pairs of rooms of its groups."""
    text = (TESTS.parent / "ARCHITECTURE.md").read_text()
    members, edges, group = defaultdict[str, set[str]](set), set[tuple[str, str]](), ""
    for line in text.partition("flowchart TD\n")[2].partition("```")[0].splitlines():
        if (words := line.split())[0] in ("subgraph", "end"):
            group = "".join(words[1:2])
            continue
        sides = [re.findall(r"\w+", re.sub(r"\[.*?\]", "", side)) for side in line.split("-->")]
        members[group].update(*sides)
        edges |= {edge for before, after in pairwise(sides) for edge in product(before, after)}
    rooms = {each: members.get(each, {each}) for edge in edges for each in edge}
    return [{*product(rooms[before], rooms[after])} for before, after in edges]


def test_the_diagram_leads_to_what_a_room_imports() -> None:
    edges = {edge for of_arrow in drawn() for edge in of_arrow}
    imported = {
        (room_of(module).split(".")[-1], room_of(name).split(".")[-1])
        for module in MODULES
        if room_of(module)
        for name in arrows(module)
    }
    assert all(of_arrow & imported for of_arrow in drawn())
    for room in {before for before, _ in imported}:
        found, left = {room}, [room]
        while left:
            before = left.pop()
            new = {after for each, after in edges if each == before} - found
            found |= new
            left += new
        missing = {after for before, after in imported if before == room} - found
        assert not missing, f"draw {room} --> {' & '.join(missing)} in ARCHITECTURE.md"


def test_a_room_imports_only_the_rooms_below_it() -> None:
    wrong = {
        f"{module} imports {name}"
        for module in MODULES
        if (room := room_of(module))
        for name in arrows(module)
        if room_of(name) not in ARROWS[room] | {room}
    }
    assert not wrong


def rows_of_rooms() -> dict[str, list[str]]:
    """The cells that ARCHITECTURE.md's tables have for each room."""
    text = (TESTS.parent / "ARCHITECTURE.md").read_text()
    rows = re.findall(r"^\| `(\w+)(?:/|\.py)` \| (.+) \|$", text, re.MULTILINE)
    return {room: cells.split(" | ") for room, cells in rows}


def test_architecture_has_a_row_for_each_room() -> None:
    assert rows_of_rooms().keys() == {room for room in ARROWS if "." not in room}


def test_only_the_modules_in_architectures_table_import_dagster() -> None:
    destinations = {
        f"tables.{path.stem}" for path in PACKAGE.glob("tables/*.py") if has_destination(path)
    }
    listed = {
        f"{room}.{name}"
        for room in DOWNSTREAM
        for name in re.findall(r"`(\w+)`", rows_of_rooms()[room][1])
    }
    found = {
        module.partition(".")[2]
        for module in MODULES
        if room_of(module).partition(".")[0] in DOWNSTREAM
        for name in imports(MODULES[module])
        if name.split(".")[0] == "dagster" or room_of(name) in ("assets", "snapshots")
    }
    assert found - destinations == listed


def has_destination(path: Path) -> bool:
    """True if a module has a subclass of `TableDestination`."""
    bases = [
        base
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
    ]
    return any(isinstance(base, ast.Name) and base.id == "TableDestination" for base in bases)


def kinds_of(rooms: set[str]) -> list[TableKind]:
    """The kinds of tables that the modules of rooms name."""
    return [
        value
        for module in MODULES
        if room_of(module) in rooms
        for value in vars(importlib.import_module(module)).values()
        if isinstance(value, TableKind)
    ]


def names_of(kinds: Iterable[TableKind]) -> set[str]:
    """The names of columns, entries and checks of kinds; one word alone means many things."""
    return {
        name
        for kind in kinds
        for name in (*kind.schema, *kind.parts, *kind.first, *kind.collected, *kind.checks)
        if re.search(r"\w[ _]\w", name)
    }


def test_what_handles_tables_names_nothing_that_one_kind_of_them_has() -> None:
    """So a new kind is entered in no old file: what is to be known of it, it brings."""
    known = names_of(kinds_of(CAPABILITIES)) - names_of(kinds_of(CORE))
    assert len(known) > 20
    wrong = {
        f"{module} names {node.value!r}"
        for module, path in MODULES.items()
        if room_of(module) in HANDLING
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value.removeprefix("octogen/") in known
    }
    assert not wrong


def test_a_room_knows_none_of_the_libraries_above_it() -> None:
    wrong = {
        f"{module} imports {name}"
        for module, path in MODULES.items()
        for name in imports(path)
        if name.split(".")[0] in FORBIDDEN_LIBRARIES.get(room_of(module), ())
    }
    assert not wrong


def test_what_is_private_to_dagster_is_left_alone() -> None:
    wrong = {
        f"{module} imports {name}"
        for module, path in MODULES.items()
        for name in imports(path)
        if name.startswith("dagster._")
    }
    assert not wrong


def test_the_rooms_make_no_circle() -> None:
    graph: defaultdict[str, set[str]] = defaultdict(set)
    for module in MODULES:
        for name in arrows(module):
            if room_of(name) != room_of(module):
                graph[room_of(module)].add(room_of(name))
    graphlib.TopologicalSorter(graph).prepare()


def test_the_modules_make_no_circle_in_imports_for_types_neither() -> None:
    graph = {name: arrows(name) for name in MODULES}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    "name",
    [
        "build_product_brands_asset",
        "build_product_changes_asset",
        "build_product_history_asset",
        "build_price_alerts_asset",
        "build_price_position_asset",
        "build_snapshot_checks",
        "build_table_asset",
        "scan_history",
    ],
)
def test_what_follows_products_reaches_no_client(name: str) -> None:
    modules = reached({getattr(octogen_dagster, name).__module__})
    of_api = {module for module in modules if room_of(module) == "api"}
    assert of_api <= {"octogen_dagster.api.models", "octogen_dagster.api.search"}


def test_only_files_that_older_pythons_skip_import_the_published_models() -> None:
    roots = ("octogen_ai_sdk", "tests.published")
    wrong = {
        str(path)
        for path in TESTS.rglob("*.py")
        if any(name.startswith(roots) for name in imports(path))
        if not path.name.startswith(("test_published_", "published"))
    }
    assert not wrong


def test_importing_the_package_leaves_the_heavy_libraries_alone() -> None:
    program = """
import sys
import octogen_dagster
used = {"dagster", "polars", "pydantic"} & set(sys.modules)
assert not used, used
from octogen_dagster import *
heavy = {"google.cloud", "dagster_gcp", "mcp", "pandas", "pyarrow", "uvicorn", "starlette"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert "dagster" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_functions_and_files_are_short() -> None:
    """A function has at most 60 lines without its docstring, a file at most 500."""
    long = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        if text.count("\n") > 500:
            long.append(str(path))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = node.body[0] if ast.get_docstring(node, clean=False) else None
                lines = {*range(node.lineno, (node.end_lineno or 0) + 1)}
                if docstring:
                    lines -= {*range(docstring.lineno, (docstring.end_lineno or 0) + 1)}
                if len(lines) > 60:
                    long.append(f"{path}:{node.lineno} {node.name}")
    assert long == []
