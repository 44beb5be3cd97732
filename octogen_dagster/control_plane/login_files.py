"""Stores login secrets in files. Several processes can read and replace the same secret."""

from __future__ import annotations

import contextlib
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

from pydantic import SecretStr

from octogen_dagster.api.credentials import parsed_word
from octogen_dagster.background import Deadline
from octogen_dagster.errors import OctogenMCPAuthenticationError, OctogenTimeoutError
from octogen_dagster.storage.files import remove_abandoned, write_whole

_LOCK_POLL_SECONDS = 0.005
_MAX_WRITE_SECONDS = 3600.0


class SecretFile(NamedTuple):
    """A secret token in a file that only its owner can read. The file is replaced atomically.

    Symbolic links are followed. Error messages refer to the file by its `purpose`. As long as the
    file is empty, the secret is `initial`.
    """

    name: str | os.PathLike[str]
    purpose: str
    initial: SecretStr | None = None

    @property
    def path(self) -> Path:
        return Path(os.path.expanduser(self.name))  # Path.expanduser fails for an unknown home

    @property
    def place(self) -> str:
        return str(self.path)

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"The {self} cannot be pickled, because pickling would expose the secret.")

    def __str__(self) -> str:
        return f"{self.purpose} file {self.path}"

    @contextlib.contextmanager
    def locked(self, within: Deadline) -> Iterator[Deadline]:
        """Lock this file against other threads and processes, and create its folder."""
        import filelock

        if self.path.parts[0] == "~":
            raise OctogenMCPAuthenticationError(
                f"The {self} cannot be located, because this user's home folder is unknown. Set "
                "HOME, or set the paths to the login files."
            )
        target = self.path.resolve()
        lock = filelock.FileLock(
            f"{target}.lock",
            timeout=within.left,
            mode=0o666,  # the lock file is empty, and root may have created it for another user
            thread_local=False,
            poll_interval=_LOCK_POLL_SECONDS,
        )
        try:
            os.makedirs(target.parent, mode=0o700, exist_ok=True)
            lock.acquire()
        except filelock.Timeout:  # first, because it is an OSError
            raise OctogenTimeoutError(
                f"The {self} cannot be locked ({lock.lock_file}). Another process has held the "
                f"lock for {within.seconds:g} s. Try again later."
            ) from None
        except OSError as error:
            raise OctogenMCPAuthenticationError(
                f"The {self} cannot be locked ({lock.lock_file}: {error.strerror}). Without a "
                "lock, a new token could be lost. Move the file to a separate folder that this "
                "user can write to."
            ) from None
        try:
            yield Deadline.after(math.inf)
        finally:
            lock.release()

    def require(self) -> None:
        """Raise an error unless the path is a regular file, because reading a pipe might hang."""
        try:
            is_file = stat.S_ISREG(self.path.stat().st_mode)
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        else:
            if is_file:
                return
            problem = "is not a file"
        raise OctogenMCPAuthenticationError(
            f"The {self} {problem}. Run `octogen-dagster login` to write it."
        )

    def read(self) -> SecretStr:
        self.require()
        try:
            text = self.path.read_text("ascii").strip()
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        except UnicodeDecodeError:
            problem = "is not text"
        else:
            word = parsed_word(text) if text else self.initial
            problem = "does not contain exactly one word" if text else "is empty"
            del text  # keep it out of tracebacks that show locals
            if word:
                return word
        # Raised outside the handler: a UnicodeDecodeError holds the file's content.
        raise OctogenMCPAuthenticationError(
            f"The {self} {problem}. Run `octogen-dagster login` to write it."
        )

    def write(self, secret: SecretStr) -> None:
        """Write the new secret durably, so that a power failure cannot lose it."""
        target = self.path.resolve()
        try:
            remove_abandoned(target, _MAX_WRITE_SECONDS)
            # Not in a variable: keep it out of tracebacks that show locals.
            write_whole(
                target,
                f"{secret.get_secret_value()}\n".encode("ascii"),
                mode=0o600,
                keep_owner=True,
            )
        except OSError as error:
            raise OctogenMCPAuthenticationError(
                f"The {self} cannot be replaced: {error.strerror}. Move the file to a folder that "
                "this user can write to. If only the file itself is mounted, mount its folder "
                "instead."
            ) from None
