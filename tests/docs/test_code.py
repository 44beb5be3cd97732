"""Each block of Python or YAML in the documents runs alone, as a reader would paste it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.docs.blocks import BLOCKS, Block, each
from tests.docs.places import Place
from tests.docs.readers import read_python, read_yaml
from tests.forked import processes

TIMEOUT = 500.0


def check(read: Callable[..., None], place: Place, file: Path, block: Block) -> None:
    """Run a block in a process of its own, beside the tables of its page."""
    for table in BLOCKS:
        if table.page == block.page and table.title.endswith(".csv"):
            (file.parent / table.title).write_text(place.fill_in(table.source))
    file.write_text(place.fill_in(block.source))
    process = processes.Process(target=read, args=(file, place.environment))
    process.start()
    process.join(TIMEOUT)
    process.kill()
    assert process.exitcode == 0, (file.parent / "output.txt").read_text()


@each("python")
def test_a_block_of_python_runs_alone(block: Block, place: Place, tmp_path: Path) -> None:
    check(read_python, place, tmp_path / (block.title or "block.py"), block)


@each("yaml", having="\nattributes:")
def test_a_block_of_yaml_is_a_whole_deployment(block: Block, place: Place, tmp_path: Path) -> None:
    check(read_yaml, place, tmp_path / "defs.yaml", block)
