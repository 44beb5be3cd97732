"""Snapshot files on a disk or in a bucket, written to a temporary file and published in one step.

Dagster's contexts and the places of assets are not here; see `places`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import stat
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from octogen_dagster.background import run_in_thread, wait_interruptibly
from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.files import UNFINISHED, replace
from octogen_dagster.frames.reading import ROW_GROUP_SIZE
from octogen_dagster.snapshots.object_reader import STORE_ADVICE, DamagedError, ObjectReader
from octogen_dagster.snapshots.storage_options import masked_error
from octogen_dagster.snapshots.unfinished_files import (
    full_disk_error,
    unfinished_beside,
    unfinished_upload,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Future

    from upath import UPath


class SnapshotFile:
    """The file of one snapshot. The file need not exist.

    Args:
        path: The path at which the snapshot is published.
    """

    def __init__(self, path: UPath) -> None:
        self.path = path
        self._object = None if path.protocol in ("", "file", "local") else ObjectReader(path)

    @property
    def is_local(self) -> bool:
        """True for a file on a disk, False for an object in a bucket."""
        return self._object is None

    @property
    def uri(self) -> str:
        """The absolute path of a local file, or the URL of an object."""
        return str(self.path) if self._object else str(Path(self.path.path).absolute())

    @contextlib.contextmanager
    def unfinished(self) -> Iterator[Path]:
        """Create a local file to write the snapshot to, and remove it when the block ends.

        Files that killed writers left behind are removed first. A full disk is an error here,
        whatever the block wrote with.

        Raises:
            OctogenSnapshotError: The folder cannot be written to, or something other than a file
                is at the snapshot's place.
        """
        self.exists()
        with contextlib.ExitStack() as stack:
            try:
                if self._object:
                    own = unfinished_upload(Path(tempfile.gettempdir()))
                else:
                    own = unfinished_beside(Path(self.path.path).parent, self.path.name)
                path = stack.enter_context(own)
            except OSError as error:
                raise self._unwritable(error) from error
            try:
                yield path
            except (OSError, pl.exceptions.PolarsError) as error:
                if full := full_disk_error(error):
                    raise self._unwritable(full) from error
                raise

    def _unwritable(self, error: OSError) -> OctogenSnapshotError:
        if self._object:
            folder = Path(tempfile.gettempdir())
            advice = "Uploads are prepared there: free space in it, or set TMPDIR to another folder"
        else:
            folder = Path(self.path.path).parent
            advice = "Make the folder writable and free space in it, or set base_dir to another one"
        return OctogenSnapshotError(
            f"Snapshots cannot be written to {folder}: {error.strerror or error}. Nothing was "
            f"published. {advice}."
        )

    def _unreadable(self, error: OSError) -> OctogenSnapshotError:
        return OctogenSnapshotError(
            f"The snapshot {self.uri} cannot be read: {error.strerror}. Let this user read it, or "
            "set base_dir to another folder."
        )

    @property
    def previous(self) -> SnapshotFile:
        """The file of the snapshot that this one replaced."""
        return SnapshotFile(self.beside(".previous"))

    def beside(self, suffix: str) -> UPath:
        """Return a hidden path beside the snapshot, for files that belong to it."""
        place: UPath = self.path.parent / f".{self.path.name.removesuffix('.parquet')}{suffix}"
        return place

    def publish(self, unfinished: Path, *, keep_previous: bool | None = None) -> None:
        """Make a written file the snapshot; a reader sees the complete old or new one.

        If the process dies midway, the old snapshot is left at `.previous.next`, where the next
        publish finds it.

        Args:
            unfinished: The file.
            keep_previous: True if the replaced snapshot becomes `previous`, False if it is
                discarded; None if this snapshot never has a previous one.

        Raises:
            OctogenSnapshotError: The file cannot be put in place.
        """
        with self._publishing("could not be published. Readers see the old one"):
            if keep_previous is not None:
                self._move_next_previous()
            if keep_previous and self.exists():
                self._keep_for_previous()
            if self._object:
                self.path.fs.put_file(str(unfinished), self.path.path)
            else:
                replace(unfinished, self.path.path)
        if keep_previous:
            with self._publishing("is published, but the one that it replaced could not be kept"):
                self._move_next_previous()

    def remove(self) -> None:
        """Delete the snapshot.

        Raises:
            OctogenSnapshotError: It cannot be deleted.
        """
        with self._publishing("could not be deleted"):
            self.path.unlink()

    @contextlib.contextmanager
    def _publishing(self, problem: str) -> Iterator[None]:
        try:
            yield
            return
        except OctogenSnapshotError:
            raise
        except Exception as error:  # an object store's errors are of many kinds
            reason, cause = masked_error(error, self.path.storage_options)
        advice = STORE_ADVICE if self._object else "Correct the cause and run it again."
        raise OctogenSnapshotError(
            f"The snapshot {self.uri} {problem}: {reason}. {advice}"
        ) from cause

    @property
    def _next_previous(self) -> UPath:
        """The path of the old snapshot while the new one is published."""
        return self.beside(".previous.next")

    def _keep_for_previous(self) -> None:
        aside = self._next_previous.path
        if self._object:
            self.path.fs.cp_file(self.path.path, aside)
            return
        while True:
            own = str(self.path.parent / f".{self.path.name}.{uuid.uuid4().hex[:12]}{UNFINISHED}")
            try:
                os.link(self.path.path, own)
            except OSError:  # a file system without hard links
                shutil.copyfile(self.path.path, own)
            with contextlib.suppress(FileNotFoundError):  # another publisher took it for abandoned
                _rename(own, aside)
                return

    def _move_next_previous(self) -> None:
        aside = self._next_previous
        with contextlib.suppress(FileNotFoundError):  # another publisher moved it
            if self._object:
                if ObjectReader(aside).exists():
                    self.path.fs.mv(aside.path, self.previous.path.path)
            elif self.exists() and os.path.samefile(aside.path, self.path.path):
                os.unlink(aside.path)  # a process died before it replaced the snapshot
            else:
                _rename(aside.path, self.previous.path.path)

    def provenance(self) -> dict[str, str]:
        """Read the key-value metadata of the snapshot; empty if there is no snapshot.

        Raises:
            OctogenSnapshotError: The file is not a Parquet file.
        """
        if not self.exists():
            return {}
        if self._object:
            return self._object.provenance()
        with self._damage_explained():
            return pl.read_parquet_metadata(self.path.path)

    def count_rows(self) -> int:
        """Count the rows of the snapshot by its footer.

        Raises:
            OctogenSnapshotError: The file cannot be read or is not a Parquet file.
        """
        if self._object:
            return self._object.count_rows()
        return int(self.scan().select(pl.len()).collect().item())

    def exists(self) -> bool:
        """True if the snapshot exists.

        Raises:
            OctogenSnapshotError: Something other than a file is at its place, or the object store
                cannot be asked.
        """
        if self._object:
            return self._object.exists()
        try:
            mode = os.stat(self.path.path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise self._unreadable(error) from error
        if not stat.S_ISREG(mode):
            raise OctogenSnapshotError(
                f"The snapshot {self.uri} cannot be read or written: a {_kind(mode)} is at its "
                "place. Move it away, or set base_dir to another folder."
            )
        return True

    def scan(self, *, pinned: bool = True) -> pl.LazyFrame:
        """Return the snapshot as a lazy frame.

        A frame of a snapshot in a bucket requests what a query needs. Executing it after another
        snapshot was published raises OctogenSnapshotError.

        Args:
            pinned: True to keep a local file open, so that the frame does not change when another
                snapshot is published.

        Raises:
            OctogenSnapshotError: The file cannot be read or is not a Parquet file.
        """
        if self._object:
            return self._object.scan()
        self.exists()  # or it is not a file
        try:
            source = open(self.path.path, "rb") if pinned else self.path.path  # noqa: SIM115
        except OSError as error:
            raise self._unreadable(error) from error
        frame = pl.scan_parquet(source, glob=False)
        with self._damage_explained():
            frame.collect_schema()
        return frame

    @contextlib.contextmanager
    def _damage_explained(self) -> Iterator[None]:
        try:
            yield
        except pl.exceptions.PolarsError as error:
            raise DamagedError(self.uri, error) from error


def write_parquet(
    frame: pl.LazyFrame,
    path: Path,
    metadata: Callable[[], dict[str, str]],
    stop: Callable[[], None],
    row_group_size: int = ROW_GROUP_SIZE,
) -> int:
    """Stream a frame into a Parquet file and read its footer back.

    Args:
        frame: The rows; the frame is executed once.
        path: The file.
        metadata: Returns the file's key-value metadata; called after the rows are written.
        stop: Ends the frame's execution; called if this thread is interrupted.
        row_group_size: Rows in a row group; so many are held in memory.

    Returns:
        The number of rows in the file.
    """
    # Given a path, Polars may create the file again after a failed query was cleaned up.
    with path.open("wb") as file:
        sink = functools.partial(
            frame.sink_parquet,
            file,
            compression="zstd",
            compression_level=1,
            statistics=True,
            row_group_size=row_group_size,
            metadata=lambda _context: metadata(),
        )
        _run_interruptibly(sink, stop)
    rows: int = pl.scan_parquet(path, glob=False).select(pl.len()).collect().item()
    return rows


def _run_interruptibly(work: Callable[[], None], stop: Callable[[], None]) -> None:
    """Run work in a thread and wait for it, so that signal handlers run meanwhile.

    In the main thread, Polars would hold them back until it returns.
    """

    def interrupted(future: Future[None]) -> None:
        stop()
        wait_interruptibly(future)

    run_in_thread(work, "octogen-write", interrupted).result()


def _rename(source: str, target: str) -> None:
    """Rename a file, also if both names are links to one file; rename(2) would keep both."""
    os.replace(source, target)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(source)


def _kind(mode: int) -> str:
    """Name what is not a regular file."""
    kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "device")


def storage_path(base_dir: str, storage_options: Mapping[str, Any]) -> UPath:
    """Return the path of the folder or prefix that all snapshots are stored below.

    Raises:
        ValueError: base_dir is empty, or its URL scheme is unknown.
    """
    if not base_dir.strip():
        raise ValueError("base_dir must not be empty. Name a folder, gs://bucket/... or s3://...")
    from upath import UPath

    base: UPath = UPath(base_dir, **storage_options)
    return base
