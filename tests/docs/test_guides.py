"""Each guide of docs/ keeps its promise: its files and commands run in a project, in order."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from tests.docs.blocks import BLOCKS, Block
from tests.docs.commands import install_commands
from tests.docs.places import Place
from tests.docs.test_tutorial import missing
from tests.warehouses import Postgres

PROJECT = {
    "pyproject.toml": """
[project]
name = "my_shops"
version = "0.1.0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "my_shops"
""",
    "src/my_shops/__init__.py": "",
    "src/my_shops/defs/__init__.py": "",
    "src/my_shops/definitions.py": """
from pathlib import Path

from dagster import definitions, load_from_defs_folder


@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
""",
    ".dagster_home/dagster.yaml": "telemetry: {enabled: false}\nnux: {enabled: false}\n",
}
"""What `create-dagster project my_shops` writes, as far as a guide needs it."""


class Reader:
    """A reader who follows one guide in a project."""

    def __init__(self, folder: Path, place: Place, page: str, names: Mapping[str, str]) -> None:
        self.folder, self._place, self._names = folder, place, names
        self._blocks = [block for block in BLOCKS if block.page == page]
        assert self._blocks, page
        for name, text in PROJECT.items():
            self._write(name, text)
        commands = folder / "commands"
        commands.mkdir()
        install_commands(commands)
        self._environment = {
            **os.environ,
            "PATH": f"{commands}:{os.environ['PATH']}",
            "PYTHONPATH": str(folder / "src"),
            "DAGSTER_HOME": str(folder / ".dagster_home"),
            "OCTOGEN_BASE_URL": place.sandbox.base_url,
            "COLUMNS": "200",
        }

    def follow(self) -> None:
        """Write each file and run each command; outputs must be what the page shows."""
        for block, after in pairwise([*self._blocks, None]):
            assert block
            if block.title and block.language != "text":
                self._write(block.title, self.filled_in(block.source))
            elif block.language == "sh":
                printed = self.run("bash", "-euc", self.filled_in(block.source))
                if after and after.language == "text" and not after.title:
                    assert not missing(self.filled_in(after.source), printed), printed

    def run(self, *command: str) -> str:
        """Run a command in the project, and return what it printed."""
        ran = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert ran.returncode == 0, f"{' '.join(command)}:\n{ran.stdout}"
        return ran.stdout

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def filled_in(self, source: str) -> str:
        for example, name in self._names.items():
            source = source.replace(example, name)
        return self._place.fill_in(source)


def block(page: str, title: str) -> Block:
    [found] = [each for each in BLOCKS if (each.page, each.title) == (page, title)]
    return found


@pytest.mark.long
def test_postgresql_has_the_tables_of_the_guide(
    tmp_path: Path, place: Place, postgres_server: dict[str, str], postgres: Postgres
) -> None:
    page, address = "docs/to-postgres.md", postgres.uri.rpartition("@")[2]
    database = postgres.uri.rpartition("/")[2]
    names = {"localhost:5432/shop": address, "DATABASE shop": f"DATABASE {database}"}
    reader = Reader(tmp_path, place, page, names)
    postgres.execute(reader.filled_in(block(page, "setup.sql").source))
    reader.follow()
    rows = postgres.query(block(page, "prices.sql").source)
    assert list(rows[0]) == ["brand_name", "currency", "products", "lowest"]
    assert len(rows) == 3
