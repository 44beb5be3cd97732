"""Each shell block of the documents runs, and one that cannot run is shell that can be parsed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.docs.blocks import BLOCKS, ROOT, Block, each
from tests.docs.commands import install_commands
from tests.docs.places import Place

TOOLS = {"bq", "create-dagster", "docker", "gcloud", "helm", "kubectl"}
"""What a block may need that these tests do not have. tests/docs/test_tutorial.py has the first."""
SKIPPED = [block for block in BLOCKS if block.not_run]


PROJECT = {
    "pyproject.toml": '[tool.dg]\ndirectory_type = "project"\n'
    '[tool.dg.project]\nroot_module = "my_project"\ncode_location_target_module = "definitions"\n',
    "definitions.py": "import dagster as dg\n\ndefs = dg.Definitions()\n",
    "my_project/__init__.py": "",
    "my_project/defs/__init__.py": "",
}
"""The files of a Dagster project, in which commands of `dg` run."""


def make_project(folder: Path) -> None:
    for name, text in PROJECT.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.slow
@each("sh")
def test_a_block_of_commands_runs(block: Block, place: Place, tmp_path: Path) -> None:
    commands, folder = tmp_path / "bin", tmp_path / "folder"
    commands.mkdir()
    folder.mkdir()
    install_commands(commands)
    make_project(folder)
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    for name in ("constraints.txt", "deploy"):
        (folder / name).symlink_to(ROOT / name)
    environment = {
        **{name: each for name, each in os.environ.items() if not name.startswith("OCTO")},
        **place.environment,
        "DAGSTER_HOME": str(tmp_path),
        "PYTHONPATH": str(folder),
        "PATH": f"{commands}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-eu", "-c", place.fill_in(block.source)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", SKIPPED, ids=[block.name for block in SKIPPED])
def test_a_block_that_is_not_run_here_needs_a_tool_or_runs_elsewhere(block: Block) -> None:
    if not (ROOT / block.not_run).is_file():
        assert block.language == "sh"
        assert block.not_run in TOOLS
        assert block.not_run in block.source
    if block.language == "sh":
        subprocess.run(["bash", "-n", "-c", block.source], check=True)
