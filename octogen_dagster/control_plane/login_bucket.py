"""A login in a bucket, for processes that share no disk: a word in an object, with a lease."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from pydantic import SecretStr

from octogen_dagster.api.credentials import parsed_word
from octogen_dagster.background import Deadline
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenMCPAuthenticationError,
    OctogenTimeoutError,
)
from octogen_dagster.storage.files import ReplacedError

if TYPE_CHECKING:
    from octogen_dagster.storage.buckets import Bucket

LEASE_SECONDS = 240.0
"""The time for which a process keeps the others out. An exchange ends before it does."""

_FIRST_WAIT, _MAX_WAIT = 0.02, 1.0
_MAX_REFUSALS = 5
"""Writes in a row that are refused although nobody else wrote, as two that come at once may be."""

_PROCESS = uuid.uuid4().hex
_guards: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
"""The threads of a process have one lease of an object, and take turns in it."""


class ReplacedSecretError(OctogenMCPAuthenticationError):
    """Somebody else replaced a word since it was read."""


@dataclass(unsafe_hash=True)
class SecretObject:
    """One word in an object of a bucket, which is replaced under the version that was read.

    A writer holds a lease: an object beside it that is created only if there is none, or
    replaced under its version if it has ended. `initial` is the word while there is none.
    """

    uri: str
    purpose: str
    initial: SecretStr | None = None
    _version: object = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.purpose} {self.uri}"

    @property
    def place(self) -> str:
        return self.uri

    def require(self) -> None:
        """Do nothing: a lease makes no folder."""

    @contextlib.contextmanager
    def locked(self, within: Deadline) -> Iterator[Deadline]:
        """Keep out every other process that takes a lease of this object, until a deadline."""
        guard = _guards[self.uri]
        if not guard.acquire(timeout=within.left):
            raise OctogenTimeoutError(
                f"The {self} was not free within {within.seconds:g} s: another thread replaces "
                "it, or waits for the store. Try again later."
            )
        try:
            # A process that was forked has the word of its parent, and not its lease.
            holder = f"{_PROCESS}-{os.getpid()}"
            version, ends = self._acquire(holder, within)
            try:
                yield ends
            finally:
                # One that has ended, or cannot be given back now, is taken over.
                with contextlib.suppress(Exception):
                    ended = msgspec.json.encode(_Lease(holder))
                    self._bucket.publish_if(version, ended, self._lease_key)
        finally:
            guard.release()

    def _acquire(self, holder: str, within: Deadline) -> tuple[object, Deadline]:
        """Wait for the lease and take it; return its version and its end."""
        wait, refused, refusals = _FIRST_WAIT, object(), 0
        while True:
            with self._explained("is locked by a lease that cannot be read or written"):
                version, content = self._read_lease()
                lease, now = _parsed_lease(content), time.time()
                # It is this process' own if the answer to the request that took it was lost. With
                # clocks that agree, none ends later than one that begins now.
                if lease.holder == holder or not now < lease.until < now + 2 * LEASE_SECONDS:
                    refusals = refusals + 1 if version == refused else 0
                    if refusals == _MAX_REFUSALS:
                        self._read(self._lease_key)  # or it is there and may not be read
                        raise self._no_conditions()
                    own = msgspec.json.encode(_Lease(holder, now + LEASE_SECONDS))
                    # Counted from before the request: it ends no later here than for others.
                    ends = Deadline.after(LEASE_SECONDS)
                    try:
                        return self._bucket.publish_if(version, own, self._lease_key), ends
                    except ReplacedError:
                        refused = version
            if not within.left:
                until = datetime.fromtimestamp(lease.until, UTC)
                raise OctogenTimeoutError(
                    f"The {self} was not free within {within.seconds:g} s: another process is "
                    f"replacing it, or died while it did, which counts until {until:%H:%M:%S} UTC. "
                    "Try again later."
                )
            time.sleep(min(within.left, random.uniform(wait / 2, wait)))  # noqa: S311
            wait = min(2 * wait, _MAX_WAIT)

    def read(self) -> SecretStr:
        with self._explained("cannot be read"):
            self._version, content = self._read(self._key)
        word = parsed_word(content.decode("ascii", "replace")) if content.strip() else self.initial
        del content  # no traceback that shows locals is to show it
        if word:
            return word
        problem = "does not hold one word" if self._version else "is not there"
        raise OctogenMCPAuthenticationError(
            f"The {self} {problem}. Run `octogen-dagster login --token-uri URI` to write it."
        )

    def write(self, secret: SecretStr) -> None:
        """Replace the word, unless somebody else did since it was read."""
        with self._explained("cannot be replaced"):
            if self._version is None:
                with _absent_if_denied():
                    self._version = self._bucket.version(self._key)
            refused = _condition(self._version)
            try:
                # Not in a variable: no traceback that shows locals is to show it.
                self._version = self._bucket.publish_if(
                    self._version,
                    f"{secret.get_secret_value()}\n".encode("ascii"),
                    self._key,
                )
                return
            except ReplacedError:
                pass
        is_written = self.read() == secret  # the answer to the request that wrote it was lost
        if _condition(self._version) == refused:
            raise self._no_conditions()
        if not is_written:
            raise ReplacedSecretError(
                f"The {self} was replaced meanwhile, by a login or by another program: the next "
                "call begins with the new one.",
                retry_after=0.0,
            )

    def _no_conditions(self) -> OctogenMCPAuthenticationError:
        return OctogenMCPAuthenticationError(
            f"The {self} cannot be replaced: the store refuses each conditional write (If-Match, "
            "If-None-Match), although nobody else wrote. Put the login into a store that has them."
        )

    def _read_lease(self) -> tuple[object, bytes]:
        """Read the lease; one that may not be read counts as absent, and is created if it is.

        S3 denies access to a missing object in a bucket that may not be listed.
        """
        with _absent_if_denied():
            return self._read(self._lease_key)
        return None, b""

    def _read(self, key: str) -> tuple[object, bytes]:
        """Read an object with its version; None and nothing if it is not there."""
        try:
            return self._bucket.read(key)
        except FileNotFoundError:
            return None, b""

    @property
    def _key(self) -> str:
        return self.uri.rpartition("/")[2]

    @property
    def _lease_key(self) -> str:
        return f"{self._key}.lease"

    @property
    def _bucket(self) -> Bucket:
        return _opened(self.uri.rpartition("/")[0])

    @contextlib.contextmanager
    def _explained(self, problem: str) -> Iterator[None]:
        """Turn errors of the object store into those of a login."""
        from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

        try:
            yield
            return
        except (OctogenConnectionError, OctogenMCPAuthenticationError):
            raise
        except Exception as error:
            reason = self._bucket.reason(error)
            lasts = isinstance(
                error, FileNotFoundError | PermissionDeniedError | UnauthenticatedError
            )
        text = f"The {self} {problem}: {reason}."
        if lasts:
            raise OctogenMCPAuthenticationError(
                f"{text} Check that the bucket is there, and that the credentials of this process "
                "may read and write in it. Without the right to list it, S3 answers so for an "
                "object that is not there, too."
            )
        raise OctogenConnectionError(f"{text} Check that the store can be reached, and try again.")


def _condition(version: object) -> object:
    """The part of a version that a conditional write names."""
    return version[:2] if isinstance(version, tuple) else version


@contextlib.contextmanager
def _absent_if_denied() -> Iterator[None]:
    from obstore.exceptions import PermissionDeniedError

    with contextlib.suppress(PermissionDeniedError):
        yield


@functools.lru_cache(maxsize=4)
def _opened(folder: str) -> Bucket:
    """Open a bucket with the credentials of the environment."""
    from octogen_dagster.storage.buckets import Bucket

    return Bucket(folder, {})


class _Lease(msgspec.Struct):
    """The holder of a lease, and its end."""

    holder: str = ""
    until: float = 0.0


def _parsed_lease(content: bytes) -> _Lease:
    """Return a lease; what is none has ended."""
    try:
        return msgspec.json.decode(content, type=_Lease)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Lease()
