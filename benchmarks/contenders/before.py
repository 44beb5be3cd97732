"""The snapshot of an earlier commit, by the contender of that commit.

It runs in a folder of `benchmarks.earlier`, where the package of that commit comes first.
"""

import importlib.util
from pathlib import Path

from benchmarks.source import Source


def read(source: Source, folder: Path) -> Path:
    """Scan, write aside, verify and publish."""
    spec = importlib.util.spec_from_file_location("snapshot_before", "contenders/snapshot.py")
    assert spec is not None
    assert spec.loader is not None
    contender = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(contender)
    path: Path = contender.read(source, folder)
    return path
