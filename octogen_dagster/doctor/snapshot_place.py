"""The check of the place where snapshots are stored."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from octogen_dagster.doctor.findings import Check, Finding
from octogen_dagster.store import Store, write_parquet

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
    store, key = io_manager.store, f"octogen-doctor-{uuid.uuid4().hex}.parquet"
    with _without_new_folders(store, key):
        with store.unfinished(key) as unfinished:
            rows = write_parquet(pl.LazyFrame({"probe": [1]}), unfinished, dict, lambda: None)
            store.publish(unfinished, key)
        try:
            is_read = store.count_rows(key) == rows
        finally:
            store.delete([key])
    if is_read:
        step = "renamed" if store.is_local else "put"
        yield Finding(
            SUBJECT, "ok", f"a file was written, {step}, read back and deleted at {store.base_dir}."
        )
    else:
        yield Finding(
            SUBJECT,
            "failed",
            f"a file that was written to {store.base_dir} was read back with other rows.",
            "Report it with the kind of the object store.",
        )


@contextlib.contextmanager
def _without_new_folders(store: Store, key: str) -> Iterator[None]:
    """Remove the folders of a local file that do not exist yet, if they are empty in the end."""
    parents = Path(store.uri(key)).parents if store.is_local else ()
    new = [folder for folder in parents if not folder.exists()]
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # another process uses the folder by now
            for folder in new:
                folder.rmdir()
