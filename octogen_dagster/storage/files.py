"""Files on a disk, written whole or not at all by a rename: those of a store, and secret ones."""

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
"""The end of the name of a file that is still being written; such a name begins with a dot."""
_MAX_PUT_ATTEMPTS = 20
_LOCK_TIMEOUT = 60.0
_KINDS = {stat.S_IFDIR: "folder", stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket"}


class ListedFile(NamedTuple):
    """A file in a listing."""

    key: str
    modified: datetime


class ReplacedError(Exception):
    """Another writer replaced the file that a new one was made from."""


class Disk:
    """The files of a store below a folder."""

    advice = "Let this user read and write there, or set base_dir to another folder."

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def uri(self, key: str) -> str:
        return str((self._folder / key).absolute())

    def reason(self, error: Exception) -> str:
        return getattr(error, "strerror", None) or str(error)

    def version(self, key: str) -> object:
        """The version that tells a file from others at this key; None if there is none."""
        try:
            found = os.stat(self._folder / key)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(found.st_mode):
            kind = _KINDS.get(stat.S_IFMT(found.st_mode), "device")
            raise OctogenSnapshotError(
                f"The snapshot {self.uri(key)} cannot be read or written: a {kind} is at its "
                "place. Move it away, or set base_dir to another folder."
            )
        # A rename brings another inode, even if the clock of the disk has not moved on.
        return found.st_ino, found.st_mtime_ns

    def polars_arguments(self, key: str) -> dict[str, Any]:
        return {"source": self._folder / key}

    def publish(self, written: Path, key: str) -> None:
        _replace_durably(written, self._folder / key)

    def publish_if(self, version: object, written: Path, key: str) -> None:
        """Publish a file unless another one than that of the version is at its key."""
        import filelock

        lock = (self._folder / key).with_name(".lock")
        with filelock.FileLock(lock, timeout=_LOCK_TIMEOUT, mode=0o666):
            if self.version(key) != version:
                raise ReplacedError
            self.publish(written, key)

    def copy(self, key: str, target: str) -> None:
        """Copy a file to a place at which no other file ever is; it survives a power failure."""
        source, path = self._folder / key, self._folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, path)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
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

        root = os.path.join(self._folder, "")  # a Path of each file would take most of the time
        for path, _, names in os.walk(os.path.join(root, folder), onerror=refused):
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # another run removed it meanwhile
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
        for _ in range(_MAX_PUT_ATTEMPTS):  # another run may remove the folder meanwhile
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                return write_whole(path, content, durable=False)
        return write_whole(path, content, durable=False)

    def delete(self, keys: Collection[str], within: str | None = None) -> None:
        """Delete files, and another folder's empty ones, also of a killed run, and that one."""
        for key in keys:
            (self._folder / key).unlink(missing_ok=True)
        if within is not None:
            for folder, _, _ in os.walk(self._folder / within, topdown=False):
                with contextlib.suppress(OSError):  # it is not empty
                    os.rmdir(folder)


def write_whole(
    target: Path,
    content: bytes,
    *,
    mode: int = 0o666,
    durable: bool = True,
    keep_owner: bool = False,
) -> None:
    """Create a file or replace its content in one step: a reader sees the old or the new content.

    A durable one survives a power failure. The mode is reduced by the umask; 0o600 is for secrets.
    `keep_owner` gives the file the owner and group of the one that it replaces, if this user may. A
    link is replaced, not followed. What a killed writer leaves is for `remove_abandoned`.
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
    """Give an open file the owner and group of another one, if it exists and this user may."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        wanted = os.stat(like)
        os.fchown(handle, wanted.st_uid, wanted.st_gid)


def create_unfinished(target: Path, mode: int) -> BinaryIO:
    """Create a file beside another one, which will be renamed to it."""
    while True:
        unfinished = target.with_name(f".{target.name}.{secrets.token_hex(6)}{_UNFINISHED}")
        # Mode "x" neither follows a link nor opens a file that somebody else has put there.
        with contextlib.suppress(FileExistsError):
            return open(unfinished, "xb", opener=functools.partial(os.open, mode=mode))


def remove_abandoned(target: Path, older_than_seconds: float) -> None:
    """Remove the unfinished files that killed writers of a file left, by their age."""
    for unfinished in target.parent.glob(f".{glob.escape(target.name)}.*{_UNFINISHED}"):
        _remove_older(unfinished, older_than_seconds)


def remove_abandoned_below(folder: Path, older_than_seconds: float) -> None:
    """Remove the unfinished files that killed writers left in a folder and in those in it."""
    for path, _, names in os.walk(folder):
        for name in names:
            if name.startswith(".") and name.endswith(_UNFINISHED):
                _remove_older(Path(path, name), older_than_seconds)


def _remove_older(unfinished: Path, seconds: float) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError):  # one of another user
        if unfinished.lstat().st_mtime < time.time() - seconds:
            unfinished.unlink()


def _replace_durably(unfinished: str | Path, target: Path) -> None:
    """Rename a written file so that it survives a power failure under its new name."""
    _sync(unfinished)
    os.replace(unfinished, target)
    # The name is in the folder, which has to reach the disk as well.
    _sync(target.parent)


def _sync(path: str | Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
