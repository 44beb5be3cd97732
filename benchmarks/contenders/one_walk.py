"""The scan of `walks` with its catalog read in one walk."""

from pathlib import Path

from benchmarks.contenders import walks
from benchmarks.source import Source


def read(source: Source, folder: Path) -> Path:
    """Stream the scan into a file."""
    return walks.read(source, folder, max_extra_pages_percent=0)
