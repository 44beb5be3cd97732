"""The asset without saved pages, whose read could not be continued."""

from pathlib import Path

from benchmarks.contenders import asset
from benchmarks.source import Source


def read(source: Source, folder: Path) -> Path:
    """Materialize the asset."""
    return asset.read(source, folder, resume_within_hours=0)
