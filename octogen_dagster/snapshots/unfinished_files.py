"""Files that are being written: beside a snapshot, or in a folder from which they are uploaded.

Locks tell the files of writers at work from those that killed writers left behind.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import re
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from octogen_dagster.files import UNFINISHED

if TYPE_CHECKING:
    from collections.abc import Iterator

_UPLOAD_PREFIX = "octogen-upload-"
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


@contextlib.contextmanager
def unfinished_beside(folder: Path, name: str) -> Iterator[Path]:
    """Create a local file beside a snapshot, and remove it when the block ends.

    Files that killed writers of the same snapshot left behind are removed first.

    Args:
        folder: The folder of the snapshot.
        name: The name of the snapshot's file.

    Raises:
        OSError: The folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_abandoned_files(folder, name)
    path, handle = _create_locked_file(folder, name)
    try:
        yield path
    finally:
        os.close(handle)
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def unfinished_upload(parent: Path) -> Iterator[Path]:
    """Create a local file to upload, in a new folder that only this user can enter.

    The folder is removed when the block ends. Folders of this user whose process died are removed
    first.

    Args:
        parent: The folder in which the new folder is made.

    Raises:
        OSError: The folder cannot be made.
    """
    _remove_abandoned_folders(parent)
    folder, handle = _make_locked_folder(parent)
    try:
        path = folder / "snapshot.parquet"
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
        yield path
    finally:
        _remove_and_close(folder, handle)


def full_disk_error(error: BaseException) -> OSError | None:
    """Return the error of the operating system if a disk had no room for what was written.

    Polars raises errors of its own kind, with the number of the system's error in the text.
    """
    number = error.errno if isinstance(error, OSError) else None
    if match := _OS_ERROR.search(str(error)):
        number = int(match[1])
    return OSError(number, os.strerror(number)) if number in _FULL_DISK else None


def _create_locked_file(folder: Path, name: str) -> tuple[Path, int]:
    """Create a file and lock it, so that other writers do not remove it as abandoned."""
    while True:
        path = folder / f".{name}.{uuid.uuid4().hex[:12]}{UNFINISHED}"
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return path, handle
        os.close(handle)  # another writer removed it before it was locked


def _remove_abandoned_files(folder: Path, name: str) -> None:
    """Remove the files of a snapshot that no writer holds a lock on."""
    for path in folder.glob(f".{glob.escape(name)}.*{UNFINISHED}"):
        # Another user's file may not be readable. It does no harm.
        with contextlib.suppress(FileNotFoundError, BlockingIOError, PermissionError):
            handle = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(handle)


def _make_locked_folder(parent: Path) -> tuple[Path, int]:
    """Make a folder and lock it, so that other processes do not remove it as abandoned."""
    while True:
        # The name is new and the mode 0700, whatever others put into the parent folder.
        folder = Path(tempfile.mkdtemp(prefix=_UPLOAD_PREFIX, dir=parent))
        with contextlib.suppress(FileNotFoundError):
            handle = _open_folder(folder)
            fcntl.flock(handle, fcntl.LOCK_EX)
            if folder.exists():
                return folder, handle
            os.close(handle)  # another process removed it before it was locked


def _remove_abandoned_folders(parent: Path) -> None:
    """Remove the upload folders of this user that no process holds a lock on."""
    for folder in parent.glob(f"{_UPLOAD_PREFIX}*"):
        with contextlib.suppress(OSError):
            handle = _open_folder(folder)
            try:
                if os.fstat(handle).st_uid != os.geteuid():
                    raise PermissionError
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(handle)
            else:
                _remove_and_close(folder, handle)


def _open_folder(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _remove_and_close(folder: Path, handle: int) -> None:
    """Remove a folder with its files. They are named by the handle, which no link can divert."""
    with contextlib.suppress(OSError):
        for name in os.listdir(handle):
            os.unlink(name, dir_fd=handle)
        os.rmdir(folder)
    os.close(handle)
