"""Exchanges refresh tokens for access tokens at the token endpoint.

Octogen replaces a refresh token with each use and invalidates the old token before it responds.
Processes that share a token therefore take turns. An exchange has its own timeout, which does not
depend on the caller's timeout. A new token is stored before anything else happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import re
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from pydantic import SecretStr

from octogen_dagster.api.credentials import checked_url, may_use_proxy, parsed_word
from octogen_dagster.api.http import retry_after_seconds
from octogen_dagster.background import Deadline, start, wait_interruptibly
from octogen_dagster.control_plane.login_bucket import ReplacedSecretError
from octogen_dagster.control_plane.login_places import SecretPlace
from octogen_dagster.control_plane.tokens import Issued, parsed_object, with_retries
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenMCPAuthenticationError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
    OctogenTimeoutError,
)

if TYPE_CHECKING:
    import httpx2

_EXCHANGE_TIMEOUT = 120.0
_STORE_TIMEOUT = 30.0
"""The period, in seconds, in which a failed attempt to store a token is retried."""

_MAX_STORE_SECONDS = 120.0
"""The time, in seconds, that is reserved for storing a token before the lease expires.

The last retry takes up to 90 seconds.
"""

_LOCK_GRACE_SECONDS = 0.2
"""Extra seconds to wait for a lock, so that the lock's own timeout error is raised first."""

_RENEWED_BEFORE_SECONDS = 30.0
_MAX_LIFE_SECONDS = 1e9
_LOGGER = logging.getLogger(__name__)


@dataclass(unsafe_hash=True)
class SecretInMemory:
    """A secret that is kept in memory. A new value is lost when the process ends."""

    initial: SecretStr
    _replacement: SecretStr | None = field(default=None, compare=False)

    def require(self) -> None:
        """Do nothing, because the secret always exists."""

    def locked(self, _: Deadline) -> contextlib.AbstractContextManager[Deadline]:
        return contextlib.nullcontext(Deadline.after(math.inf))

    def read(self) -> SecretStr:
        return self._replacement or self.initial

    def write(self, token: SecretStr) -> None:
        # An exchange first writes the old token back to check that writing works.
        if token != self.read():
            self._replacement = token
            _LOGGER.warning(
                "Octogen replaced the refresh token. The new token is lost when this process ends. "
                "Keep the refresh token in a file."
            )


Secret: TypeAlias = SecretPlace | SecretInMemory


class Refresh:
    """Exchanges a refresh token for an access token, and stores the new refresh token.

    The exchange can take one to two minutes. The exchange runs in a thread that continues after an
    interrupt or the caller's deadline. The process waits for the exchange before it exits. If a
    caller has stopped waiting, the next caller receives the result.
    """

    def __init__(self, refresh_token: Secret, client_id: Secret, endpoint: str) -> None:
        self._held = refresh_token
        self._client_id = client_id
        self._url = checked_url(endpoint, "The token endpoint")
        self._running: Future[Issued] | None = None
        self._awaited = ""
        self._give_up: Callable[[], object] = lambda: None

    def __call__(self, within: Deadline) -> Issued:
        running = self._running or Future()
        if running.done() and _is_of_no_use(running):
            running = Future()
        try:
            if running is not self._running:
                self._begin(running, within)
            wait_interruptibly(running, within.left)
        except BaseException:
            # An exchange that has not begun has not spent a token, so do not wait for it.
            if running.cancel():
                raise
            try:
                _LOGGER.warning(
                    "Waiting for the token endpoint, which might be replacing the refresh token. "
                    "If you interrupt again, the process exits immediately and the new token is "
                    "lost."
                )
                wait_interruptibly(running)
            except BaseException:
                with contextlib.suppress(RuntimeError):  # it just ended
                    self._give_up()
                raise
            raise
        if not running.done():
            raise OctogenTimeoutError(
                f"{self._awaited} did not respond within {within.seconds:g} s. Try again later. "
                "The request continues in the background, so that no new refresh token is lost."
            )
        self._running = None
        return running.result()

    def _begin(self, exchange: Future[Issued], within: Deadline) -> None:
        """Lock the refresh token and start the exchange.

        The exchange unlocks the token when it ends. The token is locked in a separate thread,
        because a bucket might hang.
        """
        locking: Future[_Locked] = Future()
        try:
            start(functools.partial(self._lock, within), locking, "octogen-login")
            wait_interruptibly(locking, within.left + _LOCK_GRACE_SECONDS)
            if not locking.done():
                raise OctogenTimeoutError(
                    f"The {self._held} did not respond within {within.seconds:g} s. Check the "
                    "connection to the store and try again."
                )
            self._awaited = f"The token endpoint {self._url}"
            work = functools.partial(self._exchange, *locking.result())
            self._running = exchange
            start(work, exchange, "octogen-token", daemon=False)
        except BaseException:
            if exchange.cancel():  # False if it began although its start was interrupted
                locking.add_done_callback(_unlock)
            raise

    def _lock(self, within: Deadline) -> _Locked:
        held = self._held
        held.require()  # the lock would create the folder for a mistyped path
        with contextlib.ExitStack() as stack:
            lease = stack.enter_context(held.locked(within))
            old = held.read()
            held.write(old)  # if it is not writable, fail before the token is spent
            client_id = self._client_id.read().get_secret_value()
            if lease.left < _MAX_STORE_SECONDS + _EXCHANGE_TIMEOUT / 2:
                raise OctogenTimeoutError(
                    f"The store responded late, and the lock on the {held} might expire before a "
                    "new token is stored. No token was requested. Check the connection to the "
                    "store and try again."
                )
            return client_id, old, lease, stack.pop_all()

    def _exchange(
        self, client_id: str, old: SecretStr, lease: Deadline, lock: contextlib.ExitStack
    ) -> Issued:
        with lock:
            # The exchange must end while the token is still locked and can be replaced.
            within = lease.within(min(_EXCHANGE_TIMEOUT, lease.left - _MAX_STORE_SECONDS))
            try:
                issued, replacement = self._post(client_id, old, within)
            except OctogenMCPAuthenticationError:
                current = self._held.read()
                if current == old:
                    raise
                # Another program replaced the token concurrently without the lock.
                issued, replacement = self._post(client_id, current, within)
            if replacement:
                self._awaited = f"The {self._held}"
                try:
                    store = functools.partial(self._store, replacement)
                    with_retries(store, Deadline.after(_STORE_TIMEOUT))
                except (OctogenMCPAuthenticationError, OctogenConnectionError) as error:
                    raise OctogenMCPAuthenticationError(
                        f"{error} Then run `octogen-dagster login` again, because the old token "
                        "can no longer be used and the new token is lost."
                    ) from None
        if issued is None:
            raise OctogenMCPAuthenticationError(
                f"The token endpoint {self._url} returned no access token. Check the URL, or "
                "report this to Octogen."
            )
        return issued

    def _store(self, replacement: SecretStr) -> None:
        try:
            self._held.write(replacement)
        except ReplacedSecretError as error:  # the next exchange uses that token
            _LOGGER.warning("%s", error)

    def _post(self, client_id: str, refresh_token: SecretStr, within: Deadline) -> _Tokens:
        subject = f"The token endpoint {self._url}"

        async def post() -> httpx2.Response:
            import anyio
            import httpx2

            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None
            self._give_up = lambda: loop.call_soon_threadsafe(task.cancel)
            form = {
                "grant_type": "refresh_token",
                "client_id": client_id,
                "refresh_token": refresh_token.get_secret_value(),
            }
            accept = {"Accept": "application/json"}
            # Use all the time left: an abandoned request may have spent the token. The client's
            # timeouts apply to each chunk of a response.
            with anyio.fail_after(within.left):
                async with httpx2.AsyncClient(
                    timeout=None, trust_env=may_use_proxy(self._url)
                ) as http:
                    response: httpx2.Response = await http.post(
                        self._url, data=form, headers=accept
                    )
            return response

        def attempt() -> _Tokens:
            import httpx2

            try:
                response = asyncio.run(post())
            except TimeoutError:
                raise OctogenTimeoutError(
                    f"{subject} did not respond within {within.seconds:g} s. Try again later."
                ) from None
            except httpx2.HTTPError as error:
                raise OctogenConnectionError(
                    f"{subject} sent no response ({type(error).__name__}). Check the URL and the "
                    "network."
                ) from None
            return _parsed_tokens(subject, response)

        return with_retries(attempt, within)


_Locked: TypeAlias = tuple[str, SecretStr, Deadline, contextlib.ExitStack]
"""The client id, the refresh token, the time at which the token's lock expires, and the lock."""


def _unlock(locking: Future[_Locked]) -> None:
    """Release a lock that was acquired after the caller stopped waiting for it."""
    if not locking.exception():
        locking.result()[-1].close()


def _is_of_no_use(done: Future[Issued]) -> bool:
    """Return True if the exchange was cancelled or failed, or if its token must be renewed."""
    if done.cancelled():
        return True
    return done.exception() is not None or done.result().renewed_at <= time.monotonic()


_Tokens = tuple[Issued | None, SecretStr | None]
"""The access token and the new refresh token.

The new refresh token is None if the old token remains valid.
"""


def _parsed_tokens(subject: str, response: httpx2.Response) -> _Tokens:
    """Return the tokens in a response.

    Errors never quote the response, because any part might contain a token.
    """
    status, body = response.status_code, parsed_object(response.content)
    if status == 200 and body:
        life = body.get("expires_in")
        if not isinstance(life, int | float) or not 0 <= life <= _MAX_LIFE_SECONDS:
            # A token with an unknown lifetime is used until it is rejected.
            life = math.inf
        # A token with a lifetime below one minute is used for half its lifetime.
        renewed_at = time.monotonic() + max(life - _RENEWED_BEFORE_SECONDS, life / 2)
        token = parsed_word(body.get("access_token"))
        issued = Issued(token, renewed_at) if token else None
        return issued, parsed_word(body.get("refresh_token"))
    code = body.get("error")
    del body  # keep its tokens out of tracebacks that show locals
    if status == 429 or status >= 500:
        kind = OctogenMCPRateLimitError if status == 429 else OctogenMCPError
        wait = retry_after_seconds(response.headers)
        raise kind(f"{subject} returned {status}. Try again later.", retry_after=wait or 0.0)
    if status in (400, 401, 403) and isinstance(code, str) and re.fullmatch("[a-z_]{1,40}", code):
        raise OctogenMCPAuthenticationError(
            f"{subject} rejected the refresh token or client id ({status} {code!r}). The person "
            "who logged in has signed out, or a process died while replacing the token. Run "
            "`octogen-dagster login` to log in again."
        )
    raise OctogenMCPError(
        f"{subject} returned {status} without tokens. Check the token endpoint URL."
    )
