"""A secret in a file that several processes read and replace."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from octogen_dagster.control_plane.parsing import parsed_token
from octogen_dagster.errors import OctogenMCPAuthenticationError, OctogenTimeoutError
from octogen_dagster.files import remove_abandoned, write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import SecretStr

_LOCK_POLL_SECONDS = 0.005
_MAX_WRITE_SECONDS = 3600.0


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
            yield
        finally:
            lock.release()

    def read(self) -> SecretStr:
        """Return the secret.

        Raises:
            OctogenMCPAuthenticationError: The file is missing, unreadable or empty, or holds more
                than one word.
        """
        try:
            text = self.path.read_text("ascii").strip()
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
        target = self.path.resolve()
        try:
            remove_abandoned(target, _MAX_WRITE_SECONDS)
            write_whole(target, f"{secret.get_secret_value()}\n".encode("ascii"), mode=0o600)
        except OSError as error:
            problem = error.strerror
        else:
            return
        # Raised out here, because the frames in the traceback of the OSError hold the secret.
        raise OctogenMCPAuthenticationError(
            f"The {self} cannot be replaced: {problem}. Put it into a folder that this user may "
            "write to; a file that is mounted by itself cannot be replaced, its folder can."
        )
