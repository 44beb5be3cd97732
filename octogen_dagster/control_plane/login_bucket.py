"""Login secrets in a bucket, for processes without a shared disk. A lease protects each object."""

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
"""A lease's lifetime in seconds. Other processes wait until the lease is released or expires.

A token exchange always ends before its lease expires.
"""

_FIRST_WAIT, _MAX_WAIT = 0.02, 1.0
_MAX_REFUSALS = 5
"""After this number of rejections in a row, a store is assumed to reject all conditional writes.

Concurrent writes can cause a few rejections.
"""

_PROCESS = uuid.uuid4().hex
_guards: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
"""Locks by object URI. The threads in this process share the process's lease on an object."""


class ReplacedSecretError(OctogenMCPAuthenticationError):
    """Another process replaced the secret between the read and the write."""


@dataclass(unsafe_hash=True)
class SecretObject:
    """A secret token in a bucket object.

    The secret is replaced only if the object's version has not changed. A process that replaces the
    secret holds a lease, which is a second object. A lease is created only if no lease exists. An
    expired lease is replaced only if its version has not changed. As long as the object is missing,
    the secret is `initial`.
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
        """Do nothing, because a bucket needs no preparation."""

    @contextlib.contextmanager
    def locked(self, within: Deadline) -> Iterator[Deadline]:
        """Hold the object's lease while the `with` block runs.

        If another process holds the lease, wait for it until the deadline.
        """
        guard = _guards[self.uri]
        if not guard.acquire(timeout=within.left):
            raise OctogenTimeoutError(
                f"The {self} was still locked after {within.seconds:g} s. Another thread is "
                "replacing it or waiting for the store. Try again later."
            )
        try:
            # A forked process inherits its parent's secret, but not the lease.
            holder = f"{_PROCESS}-{os.getpid()}"
            version, ends = self._acquire(holder, within)
            try:
                yield ends
            finally:
                # A lease that expired or cannot be released now will be taken over.
                with contextlib.suppress(Exception):
                    ended = msgspec.json.encode(_Lease(holder))
                    self._bucket.publish_if(version, ended, self._lease_key)
        finally:
            guard.release()

    def _acquire(self, holder: str, within: Deadline) -> tuple[object, Deadline]:
        """Wait for the lease, take it, and return the lease's version and expiry time."""
        wait, refused, refusals = _FIRST_WAIT, object(), 0
        while True:
            with self._explained("has a lease that cannot be read or written"):
                version, content = self._read_lease()
                lease, now = _parsed_lease(content), time.time()
                # The lease belongs to this process if the response to its request was lost. If
                # clocks agree, no lease expires later than one that begins now.
                if lease.holder == holder or not now < lease.until < now + 2 * LEASE_SECONDS:
                    refusals = refusals + 1 if version == refused else 0
                    if refusals == _MAX_REFUSALS:
                        self._read(self._lease_key)  # raises if the lease is not readable
                        raise self._no_conditions()
                    own = msgspec.json.encode(_Lease(holder, now + LEASE_SECONDS))
                    # Counted from before the request, so it never expires later for this process.
                    ends = Deadline.after(LEASE_SECONDS)
                    try:
                        return self._bucket.publish_if(version, own, self._lease_key), ends
                    except ReplacedError:
                        refused = version
            if not within.left:
                until = datetime.fromtimestamp(lease.until, UTC)
                raise OctogenTimeoutError(
                    f"The {self} was still locked after {within.seconds:g} s. Another process is "
                    "replacing it, or ended without releasing the lock. The lock expires at "
                    f"{until:%H:%M:%S} UTC. Try again later."
                )
            time.sleep(min(within.left, random.uniform(wait / 2, wait)))  # noqa: S311
            wait = min(2 * wait, _MAX_WAIT)

    def read(self) -> SecretStr:
        with self._explained("cannot be read"):
            self._version, content = self._read(self._key)
        word = parsed_word(content.decode("ascii", "replace")) if content.strip() else self.initial
        del content  # keep it out of tracebacks that show locals
        if word:
            return word
        problem = "does not contain exactly one word" if self._version else "does not exist"
        raise OctogenMCPAuthenticationError(
            f"The {self} {problem}. Run `octogen-dagster login --token-uri URI` to write it."
        )

    def write(self, secret: SecretStr) -> None:
        """Replace the secret. Raise `ReplacedSecretError` if another process replaced it first."""
        with self._explained("cannot be replaced"):
            if self._version is None:
                with _absent_if_denied():
                    self._version = self._bucket.version(self._key)
            refused = _condition(self._version)
            try:
                # Not in a variable: keep it out of tracebacks that show locals.
                self._version = self._bucket.publish_if(
                    self._version,
                    f"{secret.get_secret_value()}\n".encode("ascii"),
                    self._key,
                )
                return
            except ReplacedError:
                pass
        is_written = self.read() == secret  # the response to the successful write was lost
        if _condition(self._version) == refused:
            raise self._no_conditions()
        if not is_written:
            raise ReplacedSecretError(
                f"A login or another program has just replaced the {self}. The next call uses the "
                "new value.",
                retry_after=0.0,
            )

    def _no_conditions(self) -> OctogenMCPAuthenticationError:
        return OctogenMCPAuthenticationError(
            f"The {self} cannot be replaced. The store rejects every conditional write (If-Match, "
            "If-None-Match), even without concurrent writes. Use a store that supports conditional "
            "writes."
        )

    def _read_lease(self) -> tuple[object, bytes]:
        """Read the lease. A lease that cannot be read counts as missing.

        Without permission to list the bucket, S3 denies access to missing objects.
        """
        with _absent_if_denied():
            return self._read(self._lease_key)
        return None, b""

    def _read(self, key: str) -> tuple[object, bytes]:
        """Return an object's version and content.

        If the object does not exist, return None and empty bytes.
        """
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
        """Convert errors from the object store to login errors."""
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
                f"{text} Check that the bucket exists and that this process can read and write "
                "its objects. Without permission to list the bucket, S3 also reports this error "
                "for missing objects."
            )
        raise OctogenConnectionError(f"{text} Check the connection to the store and try again.")


def _condition(version: object) -> object:
    """Return the part of an object's version that the store compares in a conditional write."""
    return version[:2] if isinstance(version, tuple) else version


@contextlib.contextmanager
def _absent_if_denied() -> Iterator[None]:
    from obstore.exceptions import PermissionDeniedError

    with contextlib.suppress(PermissionDeniedError):
        yield


@functools.lru_cache(maxsize=4)
def _opened(folder: str) -> Bucket:
    from octogen_dagster.storage.buckets import Bucket

    return Bucket(folder, {})


class _Lease(msgspec.Struct):
    """A lease on an object. The lease expires at `until`, a Unix timestamp."""

    holder: str = ""
    until: float = 0.0


def _parsed_lease(content: bytes) -> _Lease:
    """Parse a lease. A malformed lease counts as expired."""
    try:
        return msgspec.json.decode(content, type=_Lease)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Lease()
