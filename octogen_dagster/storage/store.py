"""Stores files on a disk or in a bucket, and publishes each file atomically."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import tempfile
import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import polars as pl

from octogen_dagster.background import run_in_thread
from octogen_dagster.errors import OctogenSnapshotError, Persistence
from octogen_dagster.io_source import collect_batches, errors_as_raised, python_source
from octogen_dagster.storage.files import (
    Disk,
    ListedFile,
    ReplacedError,
    create_unfinished,
    remove_abandoned,
    remove_abandoned_below,
)

if TYPE_CHECKING:
    from octogen_dagster.storage.buckets import Bucket

ROW_GROUP_SIZE = 20_000
SNAPSHOT_ID = "octogen.snapshot_id"
"""File metadata key for a unique ID of the Parquet file."""
ASSET_KEY = "octogen.asset_key"
PARTITION_KEY = "octogen.partition_key"
MAX_OPEN_FILES = 100
"""The maximum number of files kept open by a frame. A macOS shell limits a process to 256 files."""
MAX_EXECUTED_FRAMES = 200
"""The maximum number of frames executed concurrently.

Frames whose files are kept open do not count. Each execution uses two of Polars' 512 query threads.
Additional executions could wait forever for a thread.
"""
MAX_WRITE_SECONDS = 3600.0
"""A temporary file that is older than this is no longer being written."""
MAX_COMPONENT_LENGTH = 200
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_MAX_UNCHECKED_BYTES = 16 << 20
MAX_REQUESTS = 16
_executed = threading.BoundedSemaphore(MAX_EXECUTED_FRAMES)
_STORE_ERROR = "object-store error: "
"""The prefix of Polars errors that come from the object store."""
_NOT_PUBLISHED = (
    "The snapshot {} could not be published, but readers still see a complete snapshot, either the "
    "old or the new one"
)


class DamagedError(OctogenSnapshotError):
    """The file is not a valid Parquet file."""

    persistence = Persistence.PERMANENT

    def __init__(self, uri: str, cause: BaseException) -> None:
        self.uri, self.cause = uri, cause
        super().__init__(
            f"The file {uri} is not a snapshot or is damaged ({cause}). Materialize the asset "
            "again."
        )


def _unlabelled(_name: str, frame: pl.LazyFrame) -> pl.LazyFrame:
    return frame


def check_base_dir(base_dir: str) -> None:
    """Raise ValueError unless base_dir is a folder or a bucket prefix."""
    if not base_dir.strip():
        raise ValueError("base_dir must not be empty. Pass a folder, gs://bucket/... or s3://...")
    if "://" in base_dir and not base_dir.startswith("file://"):
        from octogen_dagster.storage.buckets import bucket_of

        bucket_of(base_dir)


class Store:
    """Files in a folder on a disk or under a bucket prefix. A key is a path such as `a/b`.

    Methods raise `OctogenSnapshotError`, except `get` for a missing file.
    """

    def __init__(self, base_dir: str, options: Mapping[str, Any] | None = None) -> None:
        check_base_dir(base_dir)
        scheme, is_url, rest = base_dir.partition("://")
        self.base_dir = base_dir
        self.is_local = not is_url or scheme == "file"
        if self.is_local:
            self._files: Disk | Bucket = Disk(Path(rest if is_url else base_dir))
        else:
            from octogen_dagster.storage.buckets import Bucket

            self._files = Bucket(base_dir, options or {})

    def uri(self, key: str) -> str:
        """Return a file's absolute path, or an object's URL."""
        return self._files.uri(key)

    @contextlib.contextmanager
    def unfinished(self, key: str) -> Iterator[Path]:
        """Create a local file to write to, and remove it when the block ends."""
        self.exists(key)  # fails early if the key is not a file or the store is unreachable
        if isinstance(self._files, Disk):
            target, mode = Path(self.uri(key)), 0o666
            advice = "Make the folder writable and free up space, or set base_dir to another folder"
        else:
            with self._explained(key, "The snapshot {} cannot be written"):
                self._files.require()
            target, mode = Path(tempfile.gettempdir(), "octogen-upload"), 0o600
            advice = "Uploads are staged there: free up space, or set TMPDIR to another folder"

        def unwritable(error: OSError) -> OctogenSnapshotError:
            return OctogenSnapshotError(
                f"Snapshots cannot be written to {target.parent}: {error.strerror or error}. "
                f"Nothing was published. {advice}."
            )

        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if not isinstance(self._files, Disk):
                remove_abandoned(target, MAX_WRITE_SECONDS)
            with create_unfinished(target, mode) as file:
                path = Path(file.name)
        except OSError as error:
            raise unwritable(error) from error
        try:
            yield path
        except (OSError, pl.exceptions.PolarsError) as error:
            if full := _full_disk_error(error):
                raise unwritable(full) from error
            raise
        finally:
            path.unlink(missing_ok=True)

    def remove_abandoned(self, key: str) -> None:
        """Remove temporary files that killed processes left for a file and its partitions.

        Uploads to a bucket are staged on a disk, where `unfinished` removes the temporary files.
        """
        if isinstance(self._files, Disk):
            target = Path(self.uri(key))
            remove_abandoned(target, MAX_WRITE_SECONDS)
            remove_abandoned_below(target.with_suffix(""), MAX_WRITE_SECONDS)

    def publish(self, written: Path, key: str) -> None:
        """Move a written file to its key. Readers see the old or the new file, both complete."""
        with self._explained(key, _NOT_PUBLISHED):
            self._files.publish(written, key)

    def publish_if(self, version: object, written: Path, key: str) -> None:
        """Move a written file to its key only if the key still has the given version."""
        with self._explained(key, _NOT_PUBLISHED):
            try:
                self._files.publish_if(version, written, key)
            except ReplacedError as error:
                raise OctogenSnapshotError(
                    f"Another run or forget_snapshot replaced {self.uri(key)} during the update. "
                    "The update was not stored. Try again."
                ) from error

    def copy(self, key: str, target: str) -> None:
        """Copy a file to a second key. The copy remains after the original is replaced."""
        with self._explained(key, "The snapshot {} cannot be kept for its history"):
            self._files.copy(key, target)

    def exists(self, key: str) -> bool:
        """True if the file exists. Raise an error if the path is a folder."""
        return self.version(key) is not None

    def version(self, key: str) -> object:
        """Return a value that changes if the file is replaced; None if the file does not exist."""
        with self._explained(key, "The snapshot {} cannot be read"):
            return self._files.version(key)

    def _versions(self, keys: Collection[str]) -> dict[str, object]:
        if self.is_local or len(keys) == 1:
            return {key: self.version(key) for key in keys}
        with ThreadPoolExecutor(MAX_REQUESTS, "octogen-version") as pool:
            return dict(zip(keys, pool.map(self.version, keys), strict=True))

    def metadata(self, key: str) -> dict[str, str]:
        """Read a Parquet file's key-value metadata; empty if the file does not exist."""
        if not self.exists(key):
            return {}
        with self._explained(key, "The snapshot {} cannot be read"):
            return pl.read_parquet_metadata(**self._files.polars_arguments(key))

    def count_rows(self, key: str) -> int:
        """Return the number of rows in a Parquet file."""
        frame = self.scan(key)
        with self._explained(key, "The snapshot {} cannot be read"):
            return int(frame.select(pl.len()).collect().item())

    def scan(self, key: str, *, pinned: bool = True) -> pl.LazyFrame:
        """Return a Parquet file as a lazy frame that never mixes two versions.

        A pinned file on a disk stays open, so the frame does not change. Any other frame raises an
        error if it is executed after the file was replaced.
        """
        return self._scanned({"": key}, _unlabelled, pinned=pinned and self.is_local)

    def scan_together(
        self,
        files: Mapping[str, str],
        labelled: Callable[[str, pl.LazyFrame], pl.LazyFrame] = _unlabelled,
    ) -> pl.LazyFrame:
        """Return several files as one lazy frame that never mixes two versions of a file."""
        names, pinned = list(files), self.is_local and len(files) <= MAX_OPEN_FILES
        # Polars takes quadratic time in the number of Python sources.
        firsts = range(0, len(names), MAX_OPEN_FILES)
        groups = [names[first : first + MAX_OPEN_FILES] for first in firsts]
        frames = [
            self._scanned({name: files[name] for name in group}, labelled, pinned=pinned)
            for group in groups
        ]
        return pl.concat(frames, how="diagonal")

    def _scanned(
        self,
        files: Mapping[str, str],
        labelled: Callable[[str, pl.LazyFrame], pl.LazyFrame],
        *,
        pinned: bool,
    ) -> pl.LazyFrame:
        versions = {} if pinned else self._versions(files.values())
        frames = []
        for name, key in files.items():
            with self._explained(key, "The snapshot {} cannot be read"):
                arguments = self._files.polars_arguments(key)
                if pinned:
                    arguments = {"source": open(arguments["source"], "rb")}  # noqa: SIM115
                frame = pl.scan_parquet(**arguments, glob=False)
                # Read the footer here, so that an error names the file.
                frame.collect_schema()
            frames.append(labelled(name, frame))
        together = pl.concat(frames, how="diagonal")
        return together if pinned else self._checked(together, versions)

    def open(self, key: str) -> tuple[pl.LazyFrame, dict[str, str]]:
        """Return a Parquet file's rows and its metadata, both from the same file version."""
        while True:
            with self._explained(key, "The snapshot {} cannot be read"):
                version = self._files.version(key)
            # Another file can be published between these two reads.
            opened = self.scan(key), self.metadata(key)
            with self._explained(key, "The snapshot {} cannot be read"):
                if self._files.version(key) == version:
                    return opened

    def _checked(self, frame: pl.LazyFrame, versions: Mapping[str, object]) -> pl.LazyFrame:
        """Return a frame whose execution fails if one of its files was replaced or deleted."""

        def require_versions() -> None:
            for key, version in self._versions(versions).items():
                if version is None:
                    raise OctogenSnapshotError(
                        f"The snapshot {self.uri(key)} was deleted while it was being read. "
                        "Materialize the asset again."
                    )
                if version != versions[key]:
                    raise OctogenSnapshotError(
                        f"The snapshot {self.uri(key)} was replaced while it was being read. "
                        "Try again to read the new snapshot."
                    )

        def read(
            columns: list[str] | None,
            predicate: pl.Expr | None,
            n_rows: int | None,
            size: int | None,
        ) -> Iterator[pl.DataFrame]:
            # Polars applies n_rows before the predicate.
            query = frame if n_rows is None else frame.head(n_rows)
            query = query if predicate is None else query.filter(predicate)
            query = query if columns is None else query.select(columns)
            if not _executed.acquire(blocking=False):
                raise OctogenSnapshotError(
                    f"{self.uri(next(iter(versions)))} cannot be read: {MAX_EXECUTED_FRAMES} "
                    "frames are already being read. Collect the frames one after another, or load "
                    "all partitions as one frame by annotating the input as pl.LazyFrame."
                )
            unchecked, size_of_unchecked = list[pl.DataFrame](), 0
            try:
                if pl.__version__.startswith(
                    "2.0."
                ):  # this version ends batches early after a panic
                    batches = iter([query.collect(engine="streaming")])
                else:
                    batches = collect_batches(query, size, lazy=True)
                for batch in batches:
                    unchecked.append(batch)
                    size_of_unchecked += int(batch.estimated_size())
                    # Check before yielding rows, as a limited query might not request more rows.
                    if size_of_unchecked >= _MAX_UNCHECKED_BYTES:
                        require_versions()
                        yield from unchecked
                        unchecked, size_of_unchecked = [], 0
                require_versions()
                yield from unchecked
            except (OSError, pl.exceptions.PolarsError) as error:
                # A replaced file can cause various errors, so the replacement is reported instead.
                require_versions()
                if isinstance(error, pl.exceptions.PolarsError) and _STORE_ERROR not in str(error):
                    raise  # an error in the query
                with self._explained(next(iter(versions)), "The snapshot {} cannot be read"):
                    raise
            finally:
                _executed.release()

        return python_source(read, frame.collect_schema())

    def files(self, folder: str) -> list[ListedFile]:
        """List all files in a folder and its subfolders; empty if the folder does not exist."""
        with self._explained(folder, "The files in {} cannot be listed"):
            return self._files.files(folder)

    def get(self, key: str) -> bytes:
        """Read a file; raise FileNotFoundError if it does not exist."""
        with self._explained(key, "The saved pages {} cannot be read", but=FileNotFoundError):
            return self._files.get(key)

    def put(self, key: str, content: bytes) -> None:
        """Write a file and create its folder. The file is not synced to disk."""
        with self._explained(key, "Pages cannot be saved to {}"):
            self._files.put(key, content)

    def delete(self, keys: Collection[str], *, folder: str | None = None) -> None:
        """Delete files, then all empty folders in `folder`. Missing files are ignored."""
        with self._explained(folder or ", ".join(keys), "{} cannot be deleted"):
            self._files.delete(keys, folder)

    @contextlib.contextmanager
    def _explained(
        self, key: str, problem: str, *, but: type[Exception] = OctogenSnapshotError
    ) -> Iterator[None]:
        """Convert errors to OctogenSnapshotError. Errors of type `but` are not converted."""
        try:
            yield
            return
        except (OctogenSnapshotError, but):
            raise
        except Exception as error:  # object stores raise many types
            if isinstance(error, pl.exceptions.PolarsError) and _STORE_ERROR not in str(error):
                raise DamagedError(self.uri(key), error) from error
            reason = self._files.reason(error)
        # The cause is omitted, because it can be long and contain secrets.
        raise OctogenSnapshotError(
            f"{problem.format(self.uri(key))}: {reason.removeprefix(_STORE_ERROR)}. "
            f"{self._files.advice}"
        )


def path_component(key: str) -> str:
    """Encode a key as a file or folder name that can be decoded and cannot escape its folder."""
    name = quote(key, safe="-_.~=@+ ")
    # Hidden names are reserved for unfinished files and files that belong to a snapshot.
    if name.startswith(".") or name.endswith("."):
        name = name.replace(".", "%2E")
    if not name or len(name) > MAX_COMPONENT_LENGTH:
        raise ValueError(
            f"Key {key[:60]!r} cannot be a file name. A file name must have 1 to "
            f"{MAX_COMPONENT_LENGTH} characters, but this one has {len(name)}. Use a shorter key."
        )
    return name


def asset_path(asset: str) -> str:
    """Return the path for an asset key such as prefix/name."""
    return "/".join(map(path_component, asset.split("/")))


def beside(key: str, suffix: str) -> str:
    """Return the key of a hidden file next to a snapshot, with the given suffix."""
    folder, slash, name = key.rpartition("/")
    return f"{folder}{slash}.{name.removesuffix('.parquet')}{suffix}"


def write_parquet(
    frame: pl.LazyFrame,
    path: Path,
    metadata: Callable[[], dict[str, str]],
    stop: threading.Event,
    row_group_size: int = ROW_GROUP_SIZE,
) -> int:
    """Stream a frame into a Parquet file. Return the number of rows in the finished file.

    `metadata` is called after the rows are written. `stop` is set if this thread is interrupted,
    which ends the frame's execution. Up to `row_group_size` rows are held in memory.
    """
    # Polars is not given the path, because it might recreate the file after a failed query.
    with path.open("wb") as file:
        sink = functools.partial(
            frame.sink_parquet,
            file,
            compression="zstd",
            compression_level=1,
            statistics=True,
            row_group_size=row_group_size,
            metadata=lambda _context: {**metadata(), SNAPSHOT_ID: uuid.uuid4().hex},
        )
        # In the main thread, Polars would block signals until it returns.
        # Touch the file while waiting for rows, because other writers remove old unfinished files.
        with errors_as_raised():
            run_in_thread(sink, "octogen-write", stop, lambda: os.utime(path))
    rows: int = pl.scan_parquet(path, glob=False).select(pl.len()).collect().item()
    return rows


def _full_disk_error(error: BaseException) -> OSError | None:
    """Return the operating system's error if a disk is full. Polars reports it as text."""
    number = error.errno if isinstance(error, OSError) else None
    if match := _OS_ERROR.search(str(error)):
        number = int(match[1])
    return OSError(number, os.strerror(number)) if number in _FULL_DISK else None
