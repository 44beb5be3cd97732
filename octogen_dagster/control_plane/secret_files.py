"""A secret in a file that several processes read and replace."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from octogen_dagster.errors import OctogenMCPAuthenticationError, OctogenTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOCK_TIMEOUT = 120
_RETRY_INTERVAL_SECONDS = 0.005
_WRITE_TIMEOUT = 3600
_UNFINISHED = ".unfinished"


class SecretFile:
    """One line of text that only its owner may read, replaced whole or not at all.

    Args:
        path: Where it is; a link is followed. Its folder must be writable: the lock lives there.
        purpose: What it holds, to begin messages with.
    """

    def __init__(self, path: str | os.PathLike[str], purpose: str) -> None:
        self.path = Path(path).expanduser()
        self._purpose = purpose

    def __str__(self) -> str:
        return f"{self._purpose} file {self.path}"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process and thread that locks this file out.

        Raises:
            OctogenMCPAuthenticationError: The file cannot be locked where it is.
            OctogenTimeoutError: Another process has held the lock all the time.
        """
        import filelock

        target = self.path.resolve()
        if not target.parent.is_dir():
            raise OctogenMCPAuthenticationError(
                f"The {self} has no folder: {target.parent} does not exist. Create it, or correct "
                "the path."
            )
        lock = filelock.FileLock(
            f"{target}.lock",
            timeout=_LOCK_TIMEOUT,
            mode=0o600,
            poll_interval=_RETRY_INTERVAL_SECONDS,
        )
        try:
            lock.acquire()
        except filelock.Timeout:  # an OSError too
            raise OctogenTimeoutError(
                f"The {self} cannot be locked ({lock.lock_file}): another process has held it for "
                f"{_LOCK_TIMEOUT:g} s; try again later."
            ) from None
        except OSError as error:
            raise OctogenMCPAuthenticationError(
                f"The {self} cannot be locked ({lock.lock_file}: {error.strerror}), so a new token "
                "could be lost. Put it into a folder of its own that this user may write to."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def read(self) -> SecretStr:
        """What it holds.

        Raises:
            OctogenMCPAuthenticationError: It is missing, unreadable, empty or not one word.
        """
        try:
            text = self.path.read_text("ascii").strip()
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        except UnicodeDecodeError:
            problem = "is not text"
        else:
            if text and text.isprintable() and " " not in text:
                return SecretStr(text)
            problem = "does not hold one word" if text else "is empty"
        raise OctogenMCPAuthenticationError(f"The {self} {problem}. `octogen-mcp-login` writes it.")

    def write(self, secret: SecretStr) -> None:
        """Replace what it holds; once this returns, the new secret survives a crash.

        Raises:
            OctogenMCPAuthenticationError: It cannot be written; what it held before is intact.
        """
        target = self.path.resolve()
        unfinished = None
        try:
            _remove_leftovers(target)
            handle, unfinished = tempfile.mkstemp(
                dir=target.parent, prefix=f".{target.name}.", suffix=_UNFINISHED
            )
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(f"{secret.get_secret_value()}\n")
                file.flush()
                os.fsync(handle)
            os.replace(unfinished, target)
            _sync_folder(target.parent)
        except OSError as error:
            if unfinished:
                with contextlib.suppress(OSError):
                    os.unlink(unfinished)
            problem = error.strerror
        else:
            return
        raise OctogenMCPAuthenticationError(
            f"The {self} cannot be replaced: {problem}. Put it into a folder that this user may "
            "write to; a file that is mounted by itself cannot be replaced, its folder can."
        )


def _remove_leftovers(target: Path) -> None:
    """Remove what writers that were killed have left long ago."""
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.*{_UNFINISHED}"):
        with contextlib.suppress(FileNotFoundError):
            if leftover.lstat().st_mtime < time.time() - _WRITE_TIMEOUT:
                leftover.unlink()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
