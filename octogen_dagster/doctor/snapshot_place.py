"""The check of the place where snapshots are stored."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from octogen_dagster.doctor.findings import Check, Finding
from octogen_dagster.snapshots.snapshot_files import SnapshotFile, write_parquet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager

SUBJECT = "Snapshots"


def check_snapshot_place(io_manager: ParquetSnapshotIOManager) -> Check:
    """Write, publish, read back and delete a file as a snapshot is, and remove what it needed.

    Args:
        io_manager: The IO manager, whose place is checked.

    Raises:
        OctogenSnapshotError: A step fails.
    """
    base = io_manager.base
    file = SnapshotFile(base / f"octogen-doctor-{uuid.uuid4().hex}.parquet")
    with _without_new_folders(file):
        with file.unfinished() as unfinished:
            rows = write_parquet(pl.LazyFrame({"probe": [1]}), unfinished, dict, lambda: None)
            file.publish(unfinished)
        try:
            is_read = file.count_rows() == rows
        finally:
            file.remove()
    if is_read:
        step = "renamed" if file.is_local else "put"
        yield Finding(
            SUBJECT, "ok", f"a file was written, {step}, read back and deleted at {base}."
        )
    else:
        yield Finding(
            SUBJECT,
            "failed",
            f"a file that was written to {base} was read back with other rows.",
            "Report it with the kind of the object store.",
        )


@contextlib.contextmanager
def _without_new_folders(file: SnapshotFile) -> Iterator[None]:
    """Remove the folders of a local file that do not exist yet, if they are empty in the end."""
    parents = Path(file.path.path).absolute().parents if file.is_local else ()
    new = [folder for folder in parents if not folder.exists()]
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # another process uses the folder by now
            for folder in new:
                folder.rmdir()
