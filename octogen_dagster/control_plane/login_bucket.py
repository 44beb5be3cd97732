"""A login in a bucket, for processes that share no disk: a word in an object, with a lease."""

from __future__ import annotations

import contextlib
import functools
import random
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
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
from octogen_dagster.files import ReplacedError

if TYPE_CHECKING:
    from octogen_dagster.buckets import Bucket

LEASE_SECONDS = 180.0
"""Longer than an exchange and the request that stores its result may take."""

_FIRST_WAIT, _MAX_WAIT = 0.02, 1.0


@dataclass(unsafe_hash=True)
class SecretObject:
    """One word in an object of a bucket, which is replaced under the version that was read.

    Who replaces it holds a lease: an object beside it that is created only if there is none, or
    replaced under its version if it has ended.
    """

    uri: str
    purpose: str
    _version: object = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.purpose} {self.uri}"

    @property
    def place(self) -> str:
        return self.uri

    def require(self) -> None:
        """The lease makes no folder."""

    @contextlib.contextmanager
    def locked(self, within: Deadline) -> Iterator[None]:
        """Keep out every other process that takes a lease of this object."""
        holder = uuid.uuid4().hex
        version = self._acquire(holder, within)
        try:
            yield
        finally:
            # One that has ended, or cannot be given back now, is taken over.
            with contextlib.suppress(Exception):
                ended = msgspec.json.encode(_Lease(holder))
                self._bucket.publish_if(version, ended, self._lease_key)

    def _acquire(self, holder: str, within: Deadline) -> object:
        """Wait for the lease and take it; return its version."""
        wait = _FIRST_WAIT
        while True:
            with self._explained("is locked by a lease that cannot be read or written"):
                version, content = self._read(self._lease_key)
                lease = _parsed_lease(content)
                if lease.holder == holder:  # the answer to the request that took it was lost
                    return version
                if lease.until <= time.time():
                    own = msgspec.json.encode(_Lease(holder, time.time() + LEASE_SECONDS))
                    with contextlib.suppress(ReplacedError):
                        return self._bucket.publish_if(version, own, self._lease_key)
            if not within.left:
                ends = datetime.fromtimestamp(lease.until, timezone.utc)
                raise OctogenTimeoutError(
                    f"The {self} was not free within {within.seconds:g} s: another process is "
                    f"replacing it, or died while it did, which counts until {ends:%H:%M:%S} UTC. "
                    "Try again later."
                )
            time.sleep(min(within.left, random.uniform(wait / 2, wait)))  # noqa: S311
            wait = min(2 * wait, _MAX_WAIT)

    def read(self) -> SecretStr:
        with self._explained("cannot be read"):
            self._version, content = self._read(self._key)
        word = parsed_word(content.decode("ascii", "replace"))
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
                self._version = self._bucket.version(self._key)
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
        if self.read() != secret:  # or the answer to the request that wrote it was lost
            raise OctogenMCPAuthenticationError(
                f"The {self} was replaced meanwhile, by a login or by another program."
            )

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
                "may read and write in it."
            )
        raise OctogenConnectionError(f"{text} Check that the store can be reached, and try again.")


@functools.lru_cache(maxsize=4)
def _opened(folder: str) -> Bucket:
    """Open a bucket with the credentials of the environment."""
    from octogen_dagster.buckets import Bucket

    return Bucket(folder, {})


class _Lease(msgspec.Struct):
    """Who holds a lease, and until when."""

    holder: str = ""
    until: float = 0.0


def _parsed_lease(content: bytes) -> _Lease:
    """Return a lease; what is none has ended."""
    try:
        return msgspec.json.decode(content, type=_Lease)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Lease()
