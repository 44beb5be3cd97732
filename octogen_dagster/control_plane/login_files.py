"""The files of a login, each with one secret word, which several processes read and replace."""

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
    """One word in a file that only its owner may read and that is replaced in one step.

    A link is followed. `purpose` is what messages call it, `initial` the word while it is empty.
    """

    name: str | os.PathLike[str]
    purpose: str
    initial: SecretStr | None = None

    @property
    def path(self) -> Path:
        return Path(os.path.expanduser(self.name))  # unlike Path's, it needs no known home

    @property
    def place(self) -> str:
        return str(self.path)

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"The {self} is not pickled: its first word would be written in clear.")

    def __str__(self) -> str:
        return f"{self.purpose} file {self.path}"

    @contextlib.contextmanager
    def locked(self, within: Deadline) -> Iterator[Deadline]:
        """Keep out every other thread and process that locks this file; make its folder."""
        import filelock

        if self.path.parts[0] == "~":
            raise OctogenMCPAuthenticationError(
                f"The {self} has no folder, because the home folder of this user is unknown: set "
                "HOME, or name the files of the login."
            )
        target = self.path.resolve()
        lock = filelock.FileLock(
            f"{target}.lock",
            timeout=within.left,
            mode=0o666,  # it is empty, and root may have made it for the user of the file
            thread_local=False,
            poll_interval=_LOCK_POLL_SECONDS,
        )
        try:
            os.makedirs(target.parent, mode=0o700, exist_ok=True)
            lock.acquire()
        except filelock.Timeout:  # must come first: it is an OSError
            raise OctogenTimeoutError(
                f"The {self} cannot be locked ({lock.lock_file}): another process has held it for "
                f"{within.seconds:g} s; try again later."
            ) from None
        except OSError as error:
            raise OctogenMCPAuthenticationError(
                f"The {self} cannot be locked ({lock.lock_file}: {error.strerror}), so a new token "
                "could be lost. Put it into a folder of its own that this user may write to."
            ) from None
        try:
            yield Deadline.after(math.inf)
        finally:
            lock.release()

    def require(self) -> None:
        """Raise if there is no file, or something that cannot be replaced and may hang."""
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
            problem = "does not hold one word" if text else "is empty"
            del text  # no traceback that shows locals is to show it
            if word:
                return word
        # Raised out here, because a UnicodeDecodeError holds what the file holds.
        raise OctogenMCPAuthenticationError(
            f"The {self} {problem}. Run `octogen-dagster login` to write it."
        )

    def write(self, secret: SecretStr) -> None:
        """Replace the word so that it survives a power failure."""
        target = self.path.resolve()
        try:
            remove_abandoned(target, _MAX_WRITE_SECONDS)
            # Not in a variable: no traceback that shows locals is to show it.
            write_whole(
                target,
                f"{secret.get_secret_value()}\n".encode("ascii"),
                mode=0o600,
                keep_owner=True,
            )
        except OSError as error:
            raise OctogenMCPAuthenticationError(
                f"The {self} cannot be replaced: {error.strerror}. Put it into a folder that this "
                "user may write to; a file that is mounted by itself cannot be replaced, its "
                "folder can."
            ) from None
