"""Access tokens for Octogen's MCP: a given one, one that a command prints, or a refreshed one.

Octogen replaces a refresh token with each use, and spends the old one before it answers. So
processes that share a token take turns, an exchange has its own time, whoever waits for it, and a
new token is stored before anything else is done with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import math
import os
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from pydantic import SecretStr

from octogen_dagster.api.credentials import (
    checked_url,
    host_token_endpoint,
    may_use_proxy,
    parsed_word,
)
from octogen_dagster.api.http import retry_after_seconds
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.background import Deadline, start, submit, wait_interruptibly
from octogen_dagster.control_plane.login_bucket import ReplacedSecretError
from octogen_dagster.control_plane.login_places import (
    CLIENT_ID_FILE,
    REFRESH_TOKEN_FILE,
    SecretPlace,
    client_id_uri,
    secret_at,
)
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenMCPAuthenticationError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
    OctogenTimeoutError,
)

if TYPE_CHECKING:
    import httpx2

DEFAULT_TIMEOUT = 30.0
"""Seconds for a call of a tool, or for a token command."""

DEFAULT_RETRY = RetryPolicy(attempts=5, deadline=120.0, max_delay=10.0)

_EXCHANGE_TIMEOUT = 120.0
_STORE_TIMEOUT = 30.0
"""Seconds in which another attempt begins to store a token in a bucket that does not answer."""

_MAX_STORE_SECONDS = 120.0
"""The time that is left of a lease for storing: the last of those attempts takes 90 seconds."""

_LOCK_GRACE_SECONDS = 0.2
"""Seconds more than the lock has, so that its own error can say who holds it."""

_RENEWED_BEFORE_SECONDS = 30.0
_MAX_LIFE_SECONDS = 1e9
_MAX_PRINTED_BYTES = 1 << 20
_LOGGER = logging.getLogger(__name__)
_Value = TypeVar("_Value")


class Issued(NamedTuple):
    """An access token, and the time on the monotonic clock from which another one is used."""

    token: SecretStr
    renewed_at: float = math.inf


class AccessToken:
    """The access token that the sessions of a process share.

    `obtain` gets another one, within the time of its caller. `refused` is the error if it gets the
    one that the service has just refused.
    """

    def __init__(self, obtain: Callable[[Deadline], Issued], refused: str) -> None:
        self._obtain = obtain
        self._refused = refused
        self._guard = threading.Lock()
        self._issued: Issued | None = None

    def get(self, within: Deadline, refused: SecretStr | None = None) -> SecretStr:
        """Return a token to use now, and not the one that the service has just refused."""
        if not self._guard.acquire(timeout=within.left):
            raise OctogenTimeoutError(
                f"Another thread did not get an access token within {within.seconds:g} s: try "
                "again later."
            )
        try:
            issued = self._issued
            if issued is None or issued.token == refused or issued.renewed_at <= time.monotonic():
                issued = self._issued = self._obtain(within)
        finally:
            self._guard.release()
        if issued.token == refused:
            raise OctogenMCPAuthenticationError(self._refused)
        return issued.token


def given_token(access_token: SecretStr) -> AccessToken:
    """Return the source of a single access token, which cannot be renewed."""
    token = parsed_word(access_token.get_secret_value())
    if token is None:
        raise OctogenMCPAuthenticationError(
            "The access token that was given is not a token: a token is one word, without blanks."
        )
    return AccessToken(
        lambda _: Issued(token),
        "The access token is refused; they live for some five minutes. Give a new one, or a "
        "refresh token file, which lasts: `octogen-dagster login` writes it.",
    )


class TokenCommand:
    """Runs a command that prints a token, as its first line or as JSON with `access_token`.

    The rest of its output may be a secret, and is never quoted. Its words may be one too: in an
    object, no traceback that shows locals shows them.
    """

    def __init__(self, command: str, timeout: float = DEFAULT_TIMEOUT) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise ValueError(
                f"The token command cannot be split into words: {error}. Correct its quotes."
            ) from None
        self._timeout = timeout

    def __call__(self, within: Deadline) -> Issued:
        within = within.within(self._timeout)
        try:
            process = subprocess.Popen(  # noqa: S603
                self._words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            problem = f"cannot be started ({error.strerror})"
        else:
            assert process.stdout is not None
            read = functools.partial(process.stdout.read, _MAX_PRINTED_BYTES)
            printed = submit(read, "octogen-command")
            try:
                wait_interruptibly(printed, within.left)  # a child of it may keep the pipe open
                is_long = printed.done() and len(printed.result()) == _MAX_PRINTED_BYTES
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0 if is_long else within.left)
            finally:
                process.kill()
            if is_long:
                problem = f"printed more than {_MAX_PRINTED_BYTES >> 20} MB and was stopped"
            elif process.returncode is None or not printed.done():
                problem = f"did not end within {within.seconds:g} s and was stopped"
            elif process.returncode:
                problem = f"failed with exit status {process.returncode}"
            elif token := _printed_token(printed.result()):
                return Issued(token)
            else:
                problem = "printed no token, which is one word without blanks"
            del process, printed  # no traceback that shows locals is to show what they hold
        raise OctogenMCPAuthenticationError(
            f"The token command {problem}: run it by hand, without a shell, to see why."
        )


def _printed_token(output: bytes) -> SecretStr | None:
    text = output.decode("utf-8", "replace").strip()
    if text.startswith("{"):
        return parsed_word(_parsed_object(text).get("access_token"))
    return parsed_word(text.partition("\n")[0])


@dataclass(unsafe_hash=True)
class _SecretInMemory:
    """One word without a file, whose replacement ends with the process."""

    initial: SecretStr
    _replacement: SecretStr | None = field(default=None, compare=False)

    def require(self) -> None:
        """There is one always."""

    def locked(self, _: Deadline) -> contextlib.AbstractContextManager[Deadline]:
        return contextlib.nullcontext(Deadline.after(math.inf))

    def read(self) -> SecretStr:
        return self._replacement or self.initial

    def write(self, token: SecretStr) -> None:
        # An exchange first writes the old token back, to see that the place can be written to.
        if token != self.read():
            self._replacement = token
            _LOGGER.warning(
                "Octogen replaced the refresh token, and the new one is lost when this process "
                "ends: keep the refresh token in a file."
            )


_Secret: TypeAlias = SecretPlace | _SecretInMemory


class Refresh:
    """Exchanges a refresh token for an access token, and stores the one that replaces it.

    The exchange has two minutes, and one at least, in a thread that neither the deadline of a
    caller nor an interrupt cuts off, and that a process waits for before it ends. The next caller
    takes its result.
    """

    def __init__(self, refresh_token: _Secret, client_id: _Secret, endpoint: str) -> None:
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
            # An exchange that has not begun has spent no token, so there is nothing to wait for.
            if running.cancel():
                raise
            try:
                _LOGGER.warning(
                    "Waiting for the token endpoint: it may be replacing the refresh token, and "
                    "the new one would be lost. Interrupt again to leave at once."
                )
                wait_interruptibly(running)
            except BaseException:
                with contextlib.suppress(RuntimeError):  # it has just ended
                    self._give_up()
                raise
            raise
        if not running.done():
            raise OctogenTimeoutError(
                f"{self._awaited} did not answer within {within.seconds:g} s: try again later. Its "
                "answer is still waited for, or a new refresh token could be lost."
            )
        self._running = None
        return running.result()

    def _begin(self, exchange: Future[Issued], within: Deadline) -> None:
        """Lock the refresh token and begin the exchange, which unlocks it in the end.

        It is locked in a thread of its own, since a bucket may hang.
        """
        locking: Future[_Locked] = Future()
        try:
            start(functools.partial(self._lock, within), locking, "octogen-login")
            wait_interruptibly(locking, within.left + _LOCK_GRACE_SECONDS)
            if not locking.done():
                raise OctogenTimeoutError(
                    f"The {self._held} did not answer within {within.seconds:g} s: check that the "
                    "store can be reached, and try again."
                )
            self._awaited = f"The token endpoint {self._url}"
            work = functools.partial(self._exchange, *locking.result())
            self._running = exchange
            start(work, exchange, "octogen-token", daemon=False)
        except BaseException:
            if exchange.cancel():  # or it has begun, although its start was interrupted
                locking.add_done_callback(_unlock)
            raise

    def _lock(self, within: Deadline) -> _Locked:
        held = self._held
        held.require()  # the lock would make the folder of a path that was mistyped
        with contextlib.ExitStack() as stack:
            lease = stack.enter_context(held.locked(within))
            old = held.read()
            held.write(old)  # a place that cannot be written to must not cost the token in it
            client_id = self._client_id.read().get_secret_value()
            if lease.left < _MAX_STORE_SECONDS + _EXCHANGE_TIMEOUT / 2:
                raise OctogenTimeoutError(
                    f"The {held} answered so late that its lock could end before a new token is "
                    "stored, so none was asked for: check that the store can be reached, and try "
                    "again."
                )
            return client_id, old, lease, stack.pop_all()

    def _exchange(
        self, client_id: str, old: SecretStr, lease: Deadline, lock: contextlib.ExitStack
    ) -> Issued:
        with lock:
            # It ends while the token is still locked, and can be replaced.
            within = lease.within(min(_EXCHANGE_TIMEOUT, lease.left - _MAX_STORE_SECONDS))
            try:
                issued, replacement = self._post(client_id, old, within)
            except OctogenMCPAuthenticationError:
                current = self._held.read()
                if current == old:
                    raise
                # Another program replaced the token at the same moment without the lock.
                issued, replacement = self._post(client_id, current, within)
            if replacement:
                self._awaited = f"The {self._held}"
                try:
                    store = functools.partial(self._store, replacement)
                    with_retries(store, Deadline.after(_STORE_TIMEOUT))
                except (OctogenMCPAuthenticationError, OctogenConnectionError) as error:
                    raise OctogenMCPAuthenticationError(
                        f"{error} The old token is spent now, and the new one is lost: then run "
                        "`octogen-dagster login` again."
                    ) from None
        if issued is None:
            raise OctogenMCPAuthenticationError(
                f"The token endpoint {self._url} gave no access token: check its address, or "
                "report it to Octogen."
            )
        return issued

    def _store(self, replacement: SecretStr) -> None:
        try:
            self._held.write(replacement)
        except ReplacedSecretError as error:  # the next exchange begins with that one
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
            # All the time that is left: one that is given up may have spent the token. The client's
            # own timeouts count for each part of a response, however small it is.
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
                    f"{subject} did not answer within {within.seconds:g} s: try again later."
                ) from None
            except httpx2.HTTPError as error:
                raise OctogenConnectionError(
                    f"{subject} did not answer ({type(error).__name__}): check the address and the "
                    "network."
                ) from None
            return _parsed_tokens(subject, response)

        return with_retries(attempt, within)


_Locked: TypeAlias = tuple[str, SecretStr, Deadline, contextlib.ExitStack]
"""The client id, the refresh token, and the lock of the token with its end."""


def _unlock(locking: Future[_Locked]) -> None:
    """Unlock what nobody waits for any more."""
    if not locking.exception():
        locking.result()[-1].close()


def _is_of_no_use(done: Future[Issued]) -> bool:
    """True if an exchange that nobody waited for failed, never began, or was too long ago."""
    if done.cancelled():
        return True
    return done.exception() is not None or done.result().renewed_at <= time.monotonic()


def access_tokens(
    *,
    token_command: str | None = None,
    client_id: str | None = None,
    client_id_file: str | os.PathLike[str] | None = None,
    refresh_token: str | None = None,
    refresh_token_file: str | os.PathLike[str] | None = None,
    token_uri: str | None = None,
    token_endpoint: str | None = None,
    host: str | None = None,
    access_token: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> AccessToken:
    """Return the source of access tokens for a configuration.

    The token command counts first, then the token URI, the refresh token file, the refresh token,
    the access token, and the files of the last login. An empty file, or an object of a bucket that
    is not there, begins with the refresh token.
    """
    refresh, access = SecretStr(refresh_token or ""), SecretStr(access_token or "")
    del refresh_token, access_token  # no traceback that shows locals is to show them
    if token_command and token_command.strip():
        return AccessToken(
            TokenCommand(token_command, timeout),
            "The token command printed the access token that was just refused: it must print a "
            "fresh one each time.",
        )
    if token_uri:
        refresh_token_file = token_uri
        client_id_file = client_id_file or client_id_uri(token_uri)
    if not (refresh or refresh_token_file):
        if access:
            return given_token(access)
        refresh_token_file = _last_login()
        client_id_file = client_id_file or CLIENT_ID_FILE
    word = parsed_word(refresh.get_secret_value())
    if refresh_token_file:
        held: _Secret = secret_at(refresh_token_file, "refresh token", word)
    elif word:
        held = _SecretInMemory(word)
    else:
        raise OctogenMCPAuthenticationError(
            "The refresh token is not a token: a token is one word, without blanks."
        )
    if client_id:
        client: _Secret = _SecretInMemory(SecretStr(client_id))
    elif client_id_file:
        client = secret_at(client_id_file, "client id")
    else:
        raise OctogenMCPAuthenticationError(
            "A refresh token belongs to an OAuth client, and its id is missing: set "
            "OCTOGEN_MCP_CLIENT_ID_FILE or OCTOGEN_MCP_CLIENT_ID."
        )
    return _refreshed_token(held, client, token_endpoint or host_token_endpoint(host))


@functools.lru_cache(maxsize=16)
def _refreshed_token(held: _Secret, client_id: _Secret, endpoint: str) -> AccessToken:
    """Return the access token of a login, which the sessions of the process share."""
    return AccessToken(
        Refresh(held, client_id, endpoint),
        f"The token endpoint {endpoint} gave the access token that Octogen's MCP has just refused "
        "once more: check that both addresses are of one service, or report it to Octogen.",
    )


def with_retries(
    call: Callable[[], _Value], within: Deadline, *, repeatable: bool = True
) -> _Value:
    """Make a call, and again while it fails in a way that may pass and there is time.

    A call that must not reach the service twice is repeated only if the service refused it for its
    rate limit, because then it was not carried out.
    """
    policy, failures = DEFAULT_RETRY, 0
    while True:
        try:
            return call()
        except (OctogenMCPError, OctogenConnectionError) as error:
            failures += 1
            asked = error.retry_after if isinstance(error, OctogenMCPError) else 0.0
            is_carried_out = not isinstance(error, OctogenMCPRateLimitError)
            if asked is None or (is_carried_out and not repeatable) or failures >= policy.attempts:
                raise
            seconds = asked + policy.delay(failures)
            if seconds > within.left:
                raise
        time.sleep(seconds)


def _last_login() -> str:
    path = os.path.expanduser(REFRESH_TOKEN_FILE)
    if not os.path.lexists(path):
        raise OctogenMCPAuthenticationError(
            f"There is no login to Octogen's MCP in {REFRESH_TOKEN_FILE}: run `octogen-dagster "
            "login`; or set OCTOGEN_MCP_REFRESH_TOKEN_FILE and OCTOGEN_MCP_CLIENT_ID_FILE to the "
            "files of a login elsewhere, or OCTOGEN_MCP_TOKEN_URI, OCTOGEN_MCP_TOKEN_COMMAND or "
            "OCTOGEN_MCP_ACCESS_TOKEN."
        )
    return path


_Tokens = tuple[Issued | None, SecretStr | None]
"""The tokens of a response; no refresh token if the old one stays valid."""


def _parsed_tokens(subject: str, response: httpx2.Response) -> _Tokens:
    """Return the tokens of a response, which is never quoted: what is no token may hold one."""
    status, body = response.status_code, _parsed_object(response.content)
    if status == 200 and body:
        life = body.get("expires_in")
        if not isinstance(life, int | float) or not 0 <= life <= _MAX_LIFE_SECONDS:
            # A token whose life is not known is used until it is refused.
            life = math.inf
        # A token that lives for less than a minute is used for half of its life.
        renewed_at = time.monotonic() + max(life - _RENEWED_BEFORE_SECONDS, life / 2)
        token = parsed_word(body.get("access_token"))
        issued = Issued(token, renewed_at) if token else None
        return issued, parsed_word(body.get("refresh_token"))
    code = body.get("error")
    del body  # no traceback that shows locals is to show a token in it
    if status == 429 or status >= 500:
        kind = OctogenMCPRateLimitError if status == 429 else OctogenMCPError
        wait = retry_after_seconds(response.headers)
        raise kind(f"{subject} answered {status}: try again later.", retry_after=wait or 0.0)
    if status in (400, 401, 403) and isinstance(code, str) and re.fullmatch("[a-z_]{1,40}", code):
        raise OctogenMCPAuthenticationError(
            f"{subject} refused ({status} {code!r}): the refresh token or the client id is not "
            "valid any more. The person who logged in has signed out, or a process died between "
            "the use of the token and its replacement. Run `octogen-dagster login` to log in again."
        )
    raise OctogenMCPError(
        f"{subject} answered {status} and no tokens: check the address of the token endpoint."
    )


def _parsed_object(content: str | bytes) -> dict[str, Any]:
    """Return a JSON object; an empty one if the content is none."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
