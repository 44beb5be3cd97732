"""This package's snapshot without saving pages: it could not be continued."""

from pathlib import Path

from benchmarks.contenders import snapshot
from benchmarks.source import Source


def read(source: Source, folder: Path) -> Path:
    """Scan, write aside, verify, publish."""
    return snapshot.read(source, folder, save_pages=False)
