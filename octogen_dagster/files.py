"""Small local files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import secrets
import time
from pathlib import Path
from typing import BinaryIO

UNFINISHED = ".unfinished"
"""The end of the name of a file that is still being written; such a name begins with a dot."""


def write_whole(
    path: str | os.PathLike[str],
    content: bytes,
    *,
    mode: int = 0o666,
    durable: bool = True,
    keep_owner: bool = False,
) -> None:
    """Create a file or replace its content in one step: a reader sees the old or the new content.

    The content is written to a new file in the same folder, `.<name>.<random>.unfinished`, which
    is then renamed. A process that is killed midway leaves that file behind; see
    `remove_abandoned`.

    Args:
        path: The file. Its folder must exist. A link is replaced, not followed.
        content: The whole content.
        mode: The permissions of the file, reduced by the umask; 0o600 for secrets.
        durable: Also write everything to the disk, so that the file survives a power failure.
        keep_owner: Give the file the owner and group of the one that it replaces, if this user may.

    Raises:
        OSError: The file cannot be written. The old content is intact.
    """
    target = Path(path)
    file = _create_unfinished(target, mode)
    try:
        with file:
            if keep_owner:
                give_owner(file.fileno(), target)
            file.write(content)
        if durable:
            replace(file.name, target)
        else:
            os.replace(file.name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(file.name)
        raise


def give_owner(handle: int, like: str | os.PathLike[str]) -> None:
    """Give an open file the owner and group of another one; only root may change the owner.

    Args:
        handle: The descriptor of the open file.
        like: The path of the other file. If it is missing, nothing is changed.

    Raises:
        OSError: The owner cannot be changed, for another reason than a missing right.
    """
    with contextlib.suppress(FileNotFoundError, PermissionError):
        wanted = os.stat(like)
        os.fchown(handle, wanted.st_uid, wanted.st_gid)


def replace(unfinished: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Rename a written file so that it survives a power failure under its new name.

    Args:
        unfinished: The file, in the folder of the target.
        target: The new path; a file that has it is replaced.

    Raises:
        OSError: The file cannot be renamed, or its content cannot be written to the disk.
    """
    sync(unfinished)
    os.replace(unfinished, target)
    sync(Path(target).parent)


def sync(path: str | os.PathLike[str]) -> None:
    """Write a file's content, or a folder's list of names, to the disk.

    Args:
        path: The file or folder, on a local file system.

    Raises:
        OSError: The disk cannot be written to.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_abandoned(path: str | os.PathLike[str], older_than_seconds: float) -> None:
    """Remove the unfinished files that killed writers of a file left behind.

    Args:
        path: The file that `write_whole` writes.
        older_than_seconds: The age above which an unfinished file has no writer any more.

    Raises:
        OSError: A file cannot be removed.
    """
    target = Path(path)
    for unfinished in target.parent.glob(f".{glob.escape(target.name)}.*{UNFINISHED}"):
        with contextlib.suppress(FileNotFoundError):
            if unfinished.lstat().st_mtime < time.time() - older_than_seconds:
                unfinished.unlink()


def _create_unfinished(target: Path, mode: int) -> BinaryIO:
    while True:
        unfinished = target.with_name(f".{target.name}.{secrets.token_hex(6)}{UNFINISHED}")
        # Mode "x" neither follows a link nor opens a file that somebody else has put there.
        with contextlib.suppress(FileExistsError):
            return open(unfinished, "xb", opener=functools.partial(os.open, mode=mode))
