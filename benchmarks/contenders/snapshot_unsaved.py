"""The snapshot without saved pages, which could not be resumed."""

from pathlib import Path

from benchmarks.contenders import snapshot
from benchmarks.source import Source


def read(source: Source, folder: Path) -> Path:
    """Scan, write aside, verify and publish."""
    return snapshot.read(source, folder, save_pages=False)
