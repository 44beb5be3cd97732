"""Store: files on a disk or in a bucket, each of them written whole or not at all."""

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
"""The metadata of a Parquet file that tells it from each other one that was written."""
ASSET_KEY = "octogen.asset_key"
PARTITION_KEY = "octogen.partition_key"
MAX_OPEN_FILES = 100
"""Files whose frames are kept open together: a shell on macOS lets a process open 256."""
MAX_EXECUTED_FRAMES = 200
"""Frames of files that may be replaced which are executed at once: Polars has 512 threads for all
queries, and each of these takes two of them; without one it would wait for ever."""
MAX_WRITE_SECONDS = 3600.0
"""The age from which a file that is still being written has no writer any more."""
MAX_COMPONENT_LENGTH = 200
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_MAX_UNCHECKED_BYTES = 16 << 20
MAX_REQUESTS = 16
_executed = threading.BoundedSemaphore(MAX_EXECUTED_FRAMES)
_STORE_ERROR = "object-store error: "
"""The beginning of Polars' errors that are of the store."""


class DamagedError(OctogenSnapshotError):
    """A file is not a Parquet file."""

    persistence = Persistence.PERMANENT

    def __init__(self, uri: str, cause: BaseException) -> None:
        self.uri, self.cause = uri, cause
        super().__init__(
            f"The file {uri} is not a snapshot or is damaged ({cause}). Materialize it again."
        )


def _unlabelled(_name: str, frame: pl.LazyFrame) -> pl.LazyFrame:
    return frame


def check_base_dir(base_dir: str) -> None:
    """Refuse what is neither a folder nor a prefix in a bucket."""
    if not base_dir.strip():
        raise ValueError("base_dir must not be empty. Name a folder, gs://bucket/... or s3://...")
    if "://" in base_dir and not base_dir.startswith("file://"):
        from octogen_dagster.storage.buckets import bucket_of

        bucket_of(base_dir)


class Store:
    """Files below a folder on a disk, or below a prefix in a bucket. A key is a path like `a/b`.

    Errors are of the type `OctogenSnapshotError`, but that of `get` for a missing file.
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
        """The absolute path of a file on a disk, or the URL of an object."""
        return self._files.uri(key)

    @contextlib.contextmanager
    def unfinished(self, key: str) -> Iterator[Path]:
        """Create a local file to write to, and remove it when the block ends."""
        self.exists(key)  # or something else is there, or the store cannot be asked
        if isinstance(self._files, Disk):
            target, mode = Path(self.uri(key)), 0o666
            advice = "Make the folder writable and free space in it, or set base_dir to another one"
        else:
            with self._explained(key, "The snapshot {} cannot be written"):
                self._files.require()
            target, mode = Path(tempfile.gettempdir(), "octogen-upload"), 0o600
            advice = "Uploads are prepared there: free space in it, or set TMPDIR to another folder"

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
        """Remove what killed writers left of a file, and of those in the folder of its name.

        Those of a bucket are prepared on a disk, where `unfinished` removes what was left.
        """
        if isinstance(self._files, Disk):
            target = Path(self.uri(key))
            remove_abandoned(target, MAX_WRITE_SECONDS)
            remove_abandoned_below(target.with_suffix(""), MAX_WRITE_SECONDS)

    def publish(self, written: Path, key: str) -> None:
        """Give a written file its key; a reader sees the complete old or new file."""
        with self._explained(
            key,
            "The snapshot {} could not be published. Readers see the old or the new one, whole",
        ):
            self._files.publish(written, key)

    def publish_if(self, version: object, written: Path, key: str) -> None:
        """Give a written file its key unless another one than that of the version has it."""
        with self._explained(
            key,
            "The snapshot {} could not be published. Readers see the old or the new one, whole",
        ):
            try:
                self._files.publish_if(version, written, key)
            except ReplacedError as error:
                raise OctogenSnapshotError(
                    f"{self.uri(key)} was replaced while a new file was made from it, by a run or "
                    "by forget_snapshot. Nothing was changed; run it again."
                ) from error

    def copy(self, key: str, target: str) -> None:
        """Give a file a second key, which lasts when another file replaces the first one."""
        with self._explained(key, "The snapshot {} cannot be kept for its history"):
            self._files.copy(key, target)

    def exists(self, key: str) -> bool:
        """True if the file exists; anything else in its place is an error."""
        return self.version(key) is not None

    def version(self, key: str) -> object:
        """Return a value that no other file at this key has; None without a file."""
        with self._explained(key, "The snapshot {} cannot be read"):
            return self._files.version(key)

    def _versions(self, keys: Collection[str]) -> dict[str, object]:
        if self.is_local or len(keys) == 1:
            return {key: self.version(key) for key in keys}
        with ThreadPoolExecutor(MAX_REQUESTS, "octogen-version") as pool:
            return dict(zip(keys, pool.map(self.version, keys), strict=True))

    def metadata(self, key: str) -> dict[str, str]:
        """Read the key-value metadata of a Parquet file; empty if there is no file."""
        if not self.exists(key):
            return {}
        with self._explained(key, "The snapshot {} cannot be read"):
            return pl.read_parquet_metadata(**self._files.polars_arguments(key))

    def count_rows(self, key: str) -> int:
        """Count the rows of a Parquet file by its footer."""
        frame = self.scan(key)
        with self._explained(key, "The snapshot {} cannot be read"):
            return int(frame.select(pl.len()).collect().item())

    def scan(self, key: str, *, pinned: bool = True) -> pl.LazyFrame:
        """Return a Parquet file as a lazy frame, which is of one state of the file.

        A pinned file on a disk is kept open, so that the frame does not change. Any other frame
        raises when it is executed after another file was published.
        """
        return self._scanned({"": key}, _unlabelled, pinned=pinned and self.is_local)

    def scan_together(
        self,
        files: Mapping[str, str],
        labelled: Callable[[str, pl.LazyFrame], pl.LazyFrame] = _unlabelled,
    ) -> pl.LazyFrame:
        """Return files as one lazy frame, of one state of each, as `scan` does."""
        names, pinned = list(files), self.is_local and len(files) <= MAX_OPEN_FILES
        # The time that Polars takes for sources in Python grows with the square of their number.
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
                # Its footer is read now, where an error says which file it is of.
                frame.collect_schema()
            frames.append(labelled(name, frame))
        together = pl.concat(frames, how="diagonal")
        return together if pinned else self._checked(together, versions)

    def open(self, key: str) -> tuple[pl.LazyFrame, dict[str, str]]:
        """Return a Parquet file as a lazy frame and its metadata, of one state of the file."""
        while True:
            with self._explained(key, "The snapshot {} cannot be read"):
                version = self._files.version(key)
            # Between these two reads another file may be published.
            opened = self.scan(key), self.metadata(key)
            with self._explained(key, "The snapshot {} cannot be read"):
                if self._files.version(key) == version:
                    return opened

    def _checked(self, frame: pl.LazyFrame, versions: Mapping[str, object]) -> pl.LazyFrame:
        """Return a frame of files, whose execution fails if one of them was replaced."""

        def require_versions() -> None:
            for key, version in self._versions(versions).items():
                if version is None:
                    raise OctogenSnapshotError(
                        f"The snapshot {self.uri(key)} was deleted while it was read. Materialize "
                        "it again."
                    )
                if version != versions[key]:
                    raise OctogenSnapshotError(
                        f"The snapshot {self.uri(key)} was replaced while it was read. Run it "
                        "again to read the new one."
                    )

        def read(
            columns: list[str] | None,
            predicate: pl.Expr | None,
            n_rows: int | None,
            size: int | None,
        ) -> Iterator[pl.DataFrame]:
            # Polars counts n_rows before the predicate.
            query = frame if n_rows is None else frame.head(n_rows)
            query = query if predicate is None else query.filter(predicate)
            query = query if columns is None else query.select(columns)
            if not _executed.acquire(blocking=False):
                raise OctogenSnapshotError(
                    f"More than {MAX_EXECUTED_FRAMES} frames of snapshots cannot be read at once, "
                    f"as that of {self.uri(next(iter(versions)))}. Annotate the input as "
                    "pl.LazyFrame, which is one frame of all partitions, or execute the frames one "
                    "after the other."
                )
            unchecked, size_of_unchecked = list[pl.DataFrame](), 0
            try:
                if pl.__version__.startswith("2.0."):  # it ends batches early after a panic
                    batches = iter([query.collect(engine="streaming")])
                else:
                    batches = collect_batches(query, size, lazy=True)
                for batch in batches:
                    unchecked.append(batch)
                    size_of_unchecked += int(batch.estimated_size())
                    # Before rows are handed out: a limited query may ask for no more after them.
                    if size_of_unchecked >= _MAX_UNCHECKED_BYTES:
                        require_versions()
                        yield from unchecked
                        unchecked, size_of_unchecked = [], 0
                require_versions()
                yield from unchecked
            except (OSError, pl.exceptions.PolarsError) as error:
                # A file that was replaced fails in many ways, and that it was tells more.
                require_versions()
                if isinstance(error, pl.exceptions.PolarsError) and _STORE_ERROR not in str(error):
                    raise  # it is an error of the query
                with self._explained(next(iter(versions)), "The snapshot {} cannot be read"):
                    raise
            finally:
                _executed.release()

        return python_source(read, frame.collect_schema())

    def files(self, folder: str) -> list[ListedFile]:
        """List all files below a folder; none if there is no folder."""
        with self._explained(folder, "The files in {} cannot be listed"):
            return self._files.files(folder)

    def get(self, key: str) -> bytes:
        """Read a file; a missing one is a FileNotFoundError."""
        with self._explained(key, "The saved pages {} cannot be read", but=FileNotFoundError):
            return self._files.get(key)

    def put(self, key: str, content: bytes) -> None:
        """Write a file, which need not survive a power failure, and make its folder."""
        with self._explained(key, "Pages cannot be saved to {}"):
            self._files.put(key, content)

    def delete(self, keys: Collection[str], *, folder: str | None = None) -> None:
        """Delete files, and a folder if they leave it empty; what is gone is no error."""
        with self._explained(folder or ", ".join(keys), "{} cannot be deleted"):
            self._files.delete(keys, folder)

    @contextlib.contextmanager
    def _explained(
        self, key: str, problem: str, *, but: type[Exception] = OctogenSnapshotError
    ) -> Iterator[None]:
        """Turn errors into those of a snapshot, but for those of a type."""
        try:
            yield
            return
        except (OctogenSnapshotError, but):
            raise
        except Exception as error:  # an object store's errors are of many kinds
            if isinstance(error, pl.exceptions.PolarsError) and _STORE_ERROR not in str(error):
                raise DamagedError(self.uri(key), error) from error
            reason = self._files.reason(error)
        # Without its cause, which may quote a secret, and at length.
        raise OctogenSnapshotError(
            f"{problem.format(self.uri(key))}: {reason.removeprefix(_STORE_ERROR)}. "
            f"{self._files.advice}"
        )


def path_component(key: str) -> str:
    """A file or folder name for a key. It is reversible and cannot leave its folder."""
    name = quote(key, safe="-_.~=@+ ")
    # Hidden names are those of unfinished files, and of what belongs to a snapshot.
    if name.startswith(".") or name.endswith("."):
        name = name.replace(".", "%2E")
    if not name or len(name) > MAX_COMPONENT_LENGTH:
        raise ValueError(
            f"Key {key[:60]!r} cannot name a file: the name must have 1 to "
            f"{MAX_COMPONENT_LENGTH} characters, and has {len(name)}. Use a shorter key."
        )
    return name


def asset_path(asset: str) -> str:
    """The path of an asset by its key as text, such as prefix/name."""
    return "/".join(map(path_component, asset.split("/")))


def beside(key: str, suffix: str) -> str:
    """A hidden key beside a snapshot, for what belongs to it."""
    folder, slash, name = key.rpartition("/")
    return f"{folder}{slash}.{name.removesuffix('.parquet')}{suffix}"


def write_parquet(
    frame: pl.LazyFrame,
    path: Path,
    metadata: Callable[[], dict[str, str]],
    stop: threading.Event,
    row_group_size: int = ROW_GROUP_SIZE,
) -> int:
    """Stream a frame into a Parquet file, read its footer back, and return the number of rows.

    The metadata is asked for after the rows are written. `stop` ends the execution of the frame if
    this thread is interrupted; `row_group_size` rows are held in memory.
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
            metadata=lambda _context: {**metadata(), SNAPSHOT_ID: uuid.uuid4().hex},
        )
        # In the main thread, Polars would hold back signals until it returns.
        # A writer that waits for its rows shows that it lives: others remove old unfinished files.
        with errors_as_raised():
            run_in_thread(sink, "octogen-write", stop, lambda: os.utime(path))
    rows: int = pl.scan_parquet(path, glob=False).select(pl.len()).collect().item()
    return rows


def _full_disk_error(error: BaseException) -> OSError | None:
    """The error of the operating system if a disk had no room; Polars has it in its text."""
    number = error.errno if isinstance(error, OSError) else None
    if match := _OS_ERROR.search(str(error)):
        number = int(match[1])
    return OSError(number, os.strerror(number)) if number in _FULL_DISK else None
