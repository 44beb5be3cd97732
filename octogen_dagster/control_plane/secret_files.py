"""A secret in a file that several processes read and replace."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from octogen_dagster.control_plane.parsing import parsed_token
from octogen_dagster.errors import OctogenMCPAuthenticationError, OctogenTimeoutError
from octogen_dagster.files import give_owner, remove_abandoned, write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import SecretStr

_LOCK_POLL_SECONDS = 0.005
_MAX_WRITE_SECONDS = 3600.0
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_LOGGER = logging.getLogger(__name__)


class SecretFile:
    """One line of text that only its owner may read and that is replaced in one step.

    Args:
        path: The file; a link is followed. Its folder must be writable, because the lock is a file
            beside it.
        purpose: What the file holds, as in "refresh token"; error messages begin with it.
        initial: The secret to return while the file is empty.
    """

    lock_timeout: float = 120.0
    """Seconds to wait for a lock that another process or thread holds."""

    def __init__(
        self, path: str | os.PathLike[str], purpose: str, *, initial: str | None = None
    ) -> None:
        self.path = Path(os.path.expanduser(path))  # unlike Path's, it needs no known home
        self._purpose = purpose
        self._initial = initial or ""

    def __str__(self) -> str:
        return f"{self._purpose} file {self.path}"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold a lock that keeps out every other process and thread that locks this file.

        Raises:
            OctogenMCPAuthenticationError: The file cannot be locked where it is.
            OctogenTimeoutError: Another process held the lock for all of `lock_timeout`.
        """
        import filelock

        self._require_regular()
        target = self.path.resolve()
        if not target.parent.is_dir():
            raise OctogenMCPAuthenticationError(
                f"The {self} has no folder: {target.parent} does not exist. Create it, or correct "
                "the path."
            )
        lock = filelock.FileLock(
            f"{target}.lock",
            timeout=self.lock_timeout,
            mode=0o600,
            poll_interval=_LOCK_POLL_SECONDS,
        )
        try:
            lock.acquire()
        except filelock.Timeout:  # must come first: it is an OSError
            raise OctogenTimeoutError(
                f"The {self} cannot be locked ({lock.lock_file}): another process has held it for "
                f"{self.lock_timeout:g} s; try again later."
            ) from None
        except OSError as error:
            raise OctogenMCPAuthenticationError(
                f"The {self} cannot be locked ({lock.lock_file}: {error.strerror}), so a new token "
                "could be lost. Put it into a folder of its own that this user may write to."
            ) from None
        try:
            _give_lock(lock.lock_file, target)
            yield
        finally:
            lock.release()

    def read(self) -> SecretStr:
        """Return the secret.

        Raises:
            OctogenMCPAuthenticationError: The file is missing, unreadable or empty, holds more
                than one word, or is no regular file.
        """
        self._require_regular()
        try:
            with open(self.path, encoding="ascii", opener=_open_at_once) as file:
                text = file.read().strip()
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        except UnicodeDecodeError:
            problem = "is not text"
        else:
            if token := parsed_token(text or self._initial):
                return token
            problem = "does not hold one word" if text else "is empty"
        raise OctogenMCPAuthenticationError(
            f"The {self} {problem}. Run `octogen-dagster login` to write it."
        )

    def write(self, secret: SecretStr) -> None:
        """Replace the secret. Once this returns, the new secret survives a power failure.

        Raises:
            OctogenMCPAuthenticationError: The file cannot be replaced; it holds the old secret.
        """
        self._require_regular()
        target = self.path.resolve()
        content = f"{secret.get_secret_value()}\n".encode("ascii")
        try:
            remove_abandoned(target, _MAX_WRITE_SECONDS)
            write_whole(target, content, mode=0o600, keep_owner=True)
        except OSError as error:
            problem = error.strerror
        else:
            return
        # Raised out here, because the frames in the traceback of the OSError hold the secret.
        raise OctogenMCPAuthenticationError(
            f"The {self} cannot be replaced: {problem}. Put it into a folder that this user may "
            "write to; a file that is mounted by itself cannot be replaced, its folder can."
        )

    def exposed_mode(self) -> int | None:
        """Return the permissions of the file if others than its owner may read it.

        Raises:
            OSError: The file cannot be looked at.
        """
        mode = stat.S_IMODE(self.path.stat().st_mode)
        return mode if mode & 0o044 else None

    def warn_if_exposed(self) -> None:
        """Warn if others than its owner may read the file."""
        mode = self.exposed_mode()
        if mode is not None:
            _LOGGER.warning(
                f"The {self} can be read by others (mode {mode:04o}). Only its owner can read it "
                "from now on; if others may have read it, run `octogen-dagster login` again."
            )

    def _require_regular(self) -> None:
        try:
            kind = stat.S_IFMT(self.path.stat().st_mode)
        except OSError:  # opening it tells more
            return
        if kind != stat.S_IFREG:
            raise OctogenMCPAuthenticationError(
                f"The {self} is {_KINDS.get(kind, 'something else')} and not a regular file, which "
                "alone can be locked and replaced. Correct the path."
            )


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting for the other end, if it has become a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK)


def _give_lock(path: str, target: Path) -> None:
    """Let the owner of a file lock it too, after root created the lock."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            # A lock with a second name may be a link to another user's file.
            if os.fstat(handle).st_nlink == 1:
                give_owner(handle, target)
        finally:
            os.close(handle)
