"""Access tokens for Octogen's MCP: a given one, one that a command prints, or a refreshed one.

Octogen replaces a refresh token with each use and refuses the old one from then on. So processes
that share a file take turns, and a new token is stored before anything else is done with it.
"""

from __future__ import annotations

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
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from pydantic import SecretStr

from octogen_dagster.api.credentials import checked_url, host_token_endpoint, may_use_proxy
from octogen_dagster.api.http import retry_after_seconds
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.background import run_uninterrupted
from octogen_dagster.control_plane.login_files import (
    CLIENT_ID_FILE,
    REFRESH_TOKEN_FILE,
    SecretFile,
    parsed_word,
)
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenMCPAuthenticationError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
    OctogenTimeoutError,
)

if TYPE_CHECKING:
    import httpx

DEFAULT_TIMEOUT = 30.0
"""Seconds for a call of a tool, or for a token command."""

DEFAULT_RETRY = RetryPolicy(attempts=5, deadline=120.0, max_delay=10.0)

_RENEWED_BEFORE_SECONDS = 30.0
_MAX_LIFE_SECONDS = 1e9
_LOGGER = logging.getLogger(__name__)
_Value = TypeVar("_Value")


class AccessTokens(Protocol):
    """A source of access tokens."""

    def token(self, refused: SecretStr | None = None) -> SecretStr:
        """Return a token to use now, and not the one that the service has just refused."""


class GivenToken:
    """A single access token, which cannot be renewed."""

    def __init__(self, access_token: SecretStr) -> None:
        token = parsed_word(access_token.get_secret_value())
        if token is None:
            raise OctogenMCPAuthenticationError(
                "The access token that was given is not a token: a token is one word, without "
                "blanks."
            )
        self._token = token

    def token(self, refused: SecretStr | None = None) -> SecretStr:
        if refused is None:
            return self._token
        raise OctogenMCPAuthenticationError(
            "The access token is refused; they live for some five minutes. Give a new one, or a "
            "refresh token file, which lasts: `octogen-dagster login` writes it."
        )


class CommandToken:
    """The access token that a command prints, as its first line or as JSON with `access_token`.

    What else it prints is never quoted: it may be a secret.
    """

    def __init__(self, command: str, timeout: float = DEFAULT_TIMEOUT) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise ValueError(
                f"The token command cannot be split into words: {error}. Correct its quotes."
            ) from None
        self._timeout = timeout
        self._token: SecretStr | None = None

    def token(self, refused: SecretStr | None = None) -> SecretStr:
        if self._token in (None, refused):
            self._token = self._run()
        if self._token == refused:
            raise OctogenMCPAuthenticationError(
                "The token command printed the access token that was just refused: it must print a "
                "fresh one each time."
            )
        return self._token

    def _run(self) -> SecretStr:
        try:
            done = subprocess.run(  # noqa: S603
                self._words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self._timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            problem = f"did not end within {self._timeout:g} s and was stopped"
        except OSError as error:
            problem = f"cannot be started ({error.strerror})"
        else:
            status, token = done.returncode, _printed_token(done.stdout)
            del done  # no traceback that shows locals is to show what the command printed
            if token and status == 0:
                return token
            problem = "printed no token, which is one word without blanks"
            if status:
                problem = f"failed with exit status {status}"
        # Raised out here, because the error of a timeout holds what the command printed.
        raise OctogenMCPAuthenticationError(
            f"The token command {problem}: run it by hand, without a shell, to see why."
        )


class _SecretInMemory:
    """A refresh token without a file, whose replacement ends with the process."""

    def __init__(self, token: SecretStr) -> None:
        self._token = token

    def locked(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def read(self) -> SecretStr:
        return self._token

    def write(self, token: SecretStr) -> None:
        if token != self._token:
            self._token = token
            _LOGGER.warning(
                "Octogen replaced the refresh token, and the new one is lost when this process "
                "ends: keep the refresh token in a file."
            )


class _Issued(NamedTuple):
    """The tokens of a response; no refresh token if the old one stays valid."""

    access_token: SecretStr | None
    refresh_token: SecretStr | None
    expires_in: float


class RefreshedToken:
    """The access tokens of a refresh token, each used until 30 seconds before its end."""

    def __init__(
        self,
        refresh_token: SecretFile | SecretStr,
        client_id: SecretFile | str,
        endpoint: str,
        *,
        retry: RetryPolicy = DEFAULT_RETRY,
    ) -> None:
        if isinstance(refresh_token, SecretStr):
            self._held: SecretFile | _SecretInMemory = _SecretInMemory(refresh_token)
        else:
            self._held = refresh_token
        self._client_id = client_id
        self._url = checked_url(endpoint, "The token endpoint")
        self._retry = retry
        self._guard = threading.Lock()
        self._token: SecretStr | None = None
        self._renew_at = -math.inf

    def token(self, refused: SecretStr | None = None) -> SecretStr:
        with self._guard:
            if self._token in (None, refused) or time.monotonic() >= self._renew_at:
                self._token = None
                # In a thread, which neither Ctrl-C nor the end of a Dagster run reaches.
                issued = run_uninterrupted(
                    self._refresh,
                    "Waiting for the token endpoint: it may be replacing the refresh token, and "
                    "the new one would be lost.",
                )
                life = issued.expires_in
                self._renew_at = time.monotonic() + max(life - _RENEWED_BEFORE_SECONDS, life / 2)
                self._token = issued.access_token
            if self._token is None:
                raise OctogenMCPAuthenticationError(
                    f"The token endpoint {self._url} gave no access token: check its address, or "
                    "report it to Octogen."
                )
            return self._token

    def _refresh(self) -> _Issued:
        held = self._held
        held.read()  # a path that was typed wrong is an error before the lock makes its folder
        with held.locked():
            old = held.read()
            held.write(old)  # a file that cannot be replaced must not cost the token in it
            try:
                issued = self._exchange(old)
            except OctogenMCPAuthenticationError:
                current = held.read()
                if current == old:
                    raise
                # Another program replaced the token at the same moment without the lock.
                issued = self._exchange(current)
            if issued.refresh_token:
                try:
                    held.write(issued.refresh_token)
                except OctogenMCPAuthenticationError as error:
                    raise OctogenMCPAuthenticationError(
                        f"{error} The token in it is spent now: then run `octogen-dagster login` "
                        "again."
                    ) from None
        return issued

    def _exchange(self, refresh_token: SecretStr) -> _Issued:
        client = self._client_id
        if isinstance(client, SecretFile):
            client = client.read().get_secret_value()
        form = {"grant_type": "refresh_token", "client_id": client}
        ends_at = time.monotonic() + self._retry.deadline

        def attempt() -> _Issued:
            # All the time that is left: one that is given up may have spent the token, and its
            # response has the new one.
            seconds = max(0.0, ends_at - time.monotonic())
            return self._post(form, refresh_token, seconds)

        return with_retries(attempt, self._retry)

    def _post(self, form: dict[str, str], refresh_token: SecretStr, seconds: float) -> _Issued:
        import anyio
        import httpx

        subject = f"The token endpoint {self._url}"

        async def post() -> httpx.Response:
            data = {**form, "refresh_token": refresh_token.get_secret_value()}
            accept = {"Accept": "application/json"}
            # httpx's own timeouts count for each part of a response, however small it is.
            with anyio.fail_after(seconds):
                async with httpx.AsyncClient(
                    timeout=None,  # noqa: S113
                    trust_env=may_use_proxy(self._url),
                ) as http:
                    return await http.post(self._url, data=data, headers=accept)

        try:
            response = anyio.run(post)
        except TimeoutError:
            raise OctogenTimeoutError(
                f"{subject} did not answer within {self._retry.deadline:g} s: try again later."
            ) from None
        except httpx.HTTPError as error:
            raise OctogenConnectionError(
                f"{subject} did not answer ({type(error).__name__}): check the address and the "
                "network."
            ) from None
        return _issued(subject, response)


def access_tokens(
    *,
    token_command: str | None = None,
    client_id: str | None = None,
    client_id_file: str | os.PathLike[str] | None = None,
    refresh_token: str | None = None,
    refresh_token_file: str | os.PathLike[str] | None = None,
    token_endpoint: str | None = None,
    access_token: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> AccessTokens:
    """Return the source of access tokens for a configuration.

    The token command counts first, then the refresh token file, then the refresh token, then the
    access token, then the files of the last login. An empty file begins with the refresh token.
    """
    refresh, access = SecretStr(refresh_token or ""), SecretStr(access_token or "")
    del refresh_token, access_token  # no traceback that shows locals is to show them
    if token_command and token_command.strip():
        return CommandToken(token_command, min(timeout, retry.deadline))
    if not (refresh or refresh_token_file):
        if access:
            return GivenToken(access)
        refresh_token_file = _last_login()
        client_id_file = client_id_file or CLIENT_ID_FILE
    client = client_id or (client_id_file and SecretFile(client_id_file, "client id"))
    if not client:
        raise OctogenMCPAuthenticationError(
            "A refresh token belongs to an OAuth client, and its id is missing: set "
            "OCTOGEN_MCP_CLIENT_ID_FILE or OCTOGEN_MCP_CLIENT_ID."
        )
    word = parsed_word(refresh.get_secret_value())
    held = SecretFile(refresh_token_file, "refresh token", word) if refresh_token_file else word
    if held is None:
        raise OctogenMCPAuthenticationError(
            "The refresh token is not a token: a token is one word, without blanks."
        )
    endpoint = token_endpoint or host_token_endpoint()
    return _cached_refreshed_token(held, client, endpoint, retry=retry)


def with_retries(
    call: Callable[[], _Value], policy: RetryPolicy, *, repeatable: bool = True
) -> _Value:
    """Make a call, and again while it fails in a way that may pass.

    A call that must not reach the service twice is repeated only if the service refused it for its
    rate limit, because then it was not carried out.
    """
    ends_at = time.monotonic() + policy.deadline
    failures = 0
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
            if time.monotonic() + seconds > ends_at:
                raise
        time.sleep(seconds)


# The sessions of a process share an access token.
_cached_refreshed_token = functools.lru_cache(maxsize=16)(RefreshedToken)


def _last_login() -> str:
    path = os.path.expanduser(REFRESH_TOKEN_FILE)
    if not os.path.lexists(path):
        raise OctogenMCPAuthenticationError(
            f"There is no login to Octogen's MCP in {REFRESH_TOKEN_FILE}: run `octogen-dagster "
            "login`; or set OCTOGEN_MCP_REFRESH_TOKEN_FILE and OCTOGEN_MCP_CLIENT_ID_FILE to the "
            "files of a login elsewhere, or OCTOGEN_MCP_TOKEN_COMMAND or OCTOGEN_MCP_ACCESS_TOKEN."
        )
    return path


def _printed_token(output: bytes) -> SecretStr | None:
    text = output.decode("utf-8", "replace").strip()
    if text.startswith("{"):
        return parsed_word(_parsed_object(text).get("access_token"))
    return parsed_word(text.partition("\n")[0])


def _parsed_object(content: str | bytes) -> dict[str, Any]:
    """Return a JSON object; an empty one if the content is none."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _issued(subject: str, response: httpx.Response) -> _Issued:
    """Return the tokens of a response, which is never quoted: what is no token may hold one."""
    status, body = response.status_code, _parsed_object(response.content)
    if status == 200 and body:
        seconds = body.get("expires_in")
        if not isinstance(seconds, int | float) or not 0 <= seconds <= _MAX_LIFE_SECONDS:
            seconds = math.inf
        return _Issued(
            parsed_word(body.get("access_token")),
            parsed_word(body.get("refresh_token")),
            seconds,
        )
    code = body.get("error")
    del body  # no traceback that shows locals is to show a token in it
    if status == 429 or status >= 500:
        kind = OctogenMCPRateLimitError if status == 429 else OctogenMCPError
        wait = retry_after_seconds(response.headers)
        raise kind(f"{subject} answered {status}: try again later.", retry_after=wait or 0.0)
    if status in (400, 401, 403) and isinstance(code, str) and re.fullmatch("[a-z_]{1,40}", code):
        raise OctogenMCPAuthenticationError(
            f"{subject} refused ({status} {code!r}): the refresh token or the client id is not "
            "valid any more. Run `octogen-dagster login` to log in again."
        )
    raise OctogenMCPError(
        f"{subject} answered {status} and no tokens: check the address of the token endpoint."
    )
