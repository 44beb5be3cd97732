"""Writes files on a disk atomically, by renaming a temporary file."""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import secrets
import shutil
import stat
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from octogen_dagster.errors import OctogenSnapshotError

_UNFINISHED = ".unfinished"
"""The suffix of a temporary file while it is being written. The file's name starts with a dot."""
_MAX_PUT_ATTEMPTS = 20
_LOCK_TIMEOUT = 60.0
_KINDS = {stat.S_IFDIR: "folder", stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket"}


class ListedFile(NamedTuple):
    key: str
    modified: datetime


class ReplacedError(Exception):
    """Another writer replaced the file after the file was read."""


class Disk:
    """Files in a folder on a disk."""

    advice = (
        "Give the user who runs this process read and write access to the folder, or set base_dir "
        "to another folder."
    )

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def uri(self, key: str) -> str:
        return str((self._folder / key).absolute())

    def reason(self, error: Exception) -> str:
        return getattr(error, "strerror", None) or str(error)

    def version(self, key: str) -> object:
        """Return a value that identifies a file's version, or None if the file does not exist."""
        try:
            found = os.stat(self._folder / key)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(found.st_mode):
            kind = _KINDS.get(stat.S_IFMT(found.st_mode), "device")
            raise OctogenSnapshotError(
                f"The snapshot {self.uri(key)} cannot be read or written, because the path is a "
                f"{kind}. Move the {kind} away, or set base_dir to another folder."
            )
        # A rename changes the inode, even if the disk's clock has not advanced.
        return found.st_ino, found.st_mtime_ns

    def polars_arguments(self, key: str) -> dict[str, Any]:
        return {"source": self._folder / key}

    def publish(self, written: Path, key: str) -> None:
        _replace_durably(written, self._folder / key)

    def publish_if(self, version: object, written: Path, key: str) -> None:
        """Publish a file only if its key still has the given version."""
        import filelock

        lock = (self._folder / key).with_name(".lock")
        with filelock.FileLock(lock, timeout=_LOCK_TIMEOUT, mode=0o666):
            if self.version(key) != version:
                raise ReplacedError
            self.publish(written, key)

    def copy(self, key: str, target: str) -> None:
        """Copy a file to `target` and sync it to disk. An existing `target` is already a copy."""
        source, path = self._folder / key, self._folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, path)
        except FileExistsError:
            return
        except OSError:  # the file system has no hard links
            with create_unfinished(source, 0o666) as file:
                shutil.copyfile(source, file.name)
            _replace_durably(file.name, path)
        else:
            _sync(path.parent)

    def files(self, folder: str) -> list[ListedFile]:
        found = []

        def refused(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise error

        root = os.path.join(self._folder, "")  # creating a Path per file would dominate the time
        for path, _, names in os.walk(os.path.join(root, folder), onerror=refused):
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # another run has removed it
                    file = os.path.join(path, name)
                    modified = datetime.fromtimestamp(os.lstat(file).st_mtime, UTC)
                    found.append(ListedFile(file[len(root) :].replace(os.sep, "/"), modified))
        return found

    def get(self, key: str) -> bytes:
        try:
            return (self._folder / key).read_bytes()
        except NotADirectoryError as error:
            raise FileNotFoundError from error

    def put(self, key: str, content: bytes) -> None:
        path = self._folder / key
        for _ in range(_MAX_PUT_ATTEMPTS):  # another run might remove the folder
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                return write_whole(path, content, durable=False)
        return write_whole(path, content, durable=False)

    def delete(self, keys: Collection[str], within: str | None = None) -> None:
        """Delete files, then all empty folders in `within`, including those left by killed runs."""
        for key in keys:
            (self._folder / key).unlink(missing_ok=True)
        if within is not None:
            for folder, _, _ in os.walk(self._folder / within, topdown=False):
                with contextlib.suppress(OSError):  # not empty
                    os.rmdir(folder)


def write_whole(
    target: Path,
    content: bytes,
    *,
    mode: int = 0o666,
    durable: bool = True,
    keep_owner: bool = False,
) -> None:
    """Create or replace a file atomically: a reader sees either the old or the new content.

    If `durable` is True, the file survives a power failure. The umask applies to `mode`; use 0o600
    for secrets. If `keep_owner` is True, the replaced file's owner and group are kept if this is
    permitted. A symbolic link is replaced, not followed. `remove_abandoned` deletes files that
    killed processes left.
    """
    file = create_unfinished(target, mode)
    try:
        with file:
            if keep_owner:
                give_owner(file.fileno(), target)
            file.write(content)
        if durable:
            _replace_durably(file.name, target)
        else:
            os.replace(file.name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(file.name)
        raise


def give_owner(handle: int, like: str | os.PathLike[str]) -> None:
    """Give an open file the same owner and group as the file `like`.

    A missing file and missing permissions are ignored.
    """
    with contextlib.suppress(FileNotFoundError, PermissionError):
        wanted = os.stat(like)
        os.fchown(handle, wanted.st_uid, wanted.st_gid)


def create_unfinished(target: Path, mode: int) -> BinaryIO:
    """Create a temporary file next to `target`. The caller renames the file later."""
    while True:
        unfinished = target.with_name(f".{target.name}.{secrets.token_hex(6)}{_UNFINISHED}")
        # Mode "x" neither follows a link nor opens a file that somebody else created.
        with contextlib.suppress(FileExistsError):
            return open(unfinished, "xb", opener=functools.partial(os.open, mode=mode))


def remove_abandoned(target: Path, older_than_seconds: float) -> None:
    """Remove old temporary files for `target` that were left by killed processes."""
    for unfinished in target.parent.glob(f".{glob.escape(target.name)}.*{_UNFINISHED}"):
        _remove_older(unfinished, older_than_seconds)


def remove_abandoned_below(folder: Path, older_than_seconds: float) -> None:
    """Remove old temporary files that killed processes left in a folder and its subfolders."""
    for path, _, names in os.walk(folder):
        for name in names:
            if name.startswith(".") and name.endswith(_UNFINISHED):
                _remove_older(Path(path, name), older_than_seconds)


def _remove_older(unfinished: Path, seconds: float) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError):  # or it belongs to another user
        if unfinished.lstat().st_mtime < time.time() - seconds:
            unfinished.unlink()


def _replace_durably(unfinished: str | Path, target: Path) -> None:
    """Rename a temporary file to `target`, and sync both the file and its folder to disk."""
    _sync(unfinished)
    os.replace(unfinished, target)
    # The folder contains the name and must reach the disk, too.
    _sync(target.parent)


def _sync(path: str | Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
