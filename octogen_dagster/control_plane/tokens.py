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
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from pydantic import SecretStr

from octogen_dagster.api.credentials import checked_url, host_token_endpoint, may_use_proxy
from octogen_dagster.api.http import retry_after_seconds
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.background import run_uninterrupted
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenMCPAuthenticationError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
    OctogenTimeoutError,
)
from octogen_dagster.files import remove_abandoned, write_whole

if TYPE_CHECKING:
    import httpx

DEFAULT_TIMEOUT = 30.0
"""Seconds for one request."""

DEFAULT_RETRY = RetryPolicy(attempts=5, deadline=120.0, max_delay=10.0)

_FOLDER = "~/.config/octogen"  # as of Octogen's own commands, and so are the names in it
REFRESH_TOKEN_FILE = f"{_FOLDER}/mcp.refresh"
CLIENT_ID_FILE = f"{_FOLDER}/mcp.client-id"
REDIRECT_URI_FILE = f"{_FOLDER}/mcp.redirect-uri"

_LOCK_TIMEOUT = 120.0
_LOCK_POLL_SECONDS = 0.005
_MAX_WRITE_SECONDS = 3600.0
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

    def __init__(self, access_token: str) -> None:
        token = parsed_word(access_token)
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
            if done.returncode == 0 and (token := _printed_token(done.stdout)):
                return token
            problem = "printed no token, which is one word without blanks"
            if done.returncode:
                problem = f"failed with exit status {done.returncode}"
        # Raised out here, because the error of a timeout holds what the command printed.
        raise OctogenMCPAuthenticationError(
            f"The token command {problem}: run it by hand, without a shell, to see why."
        )


class SecretFile:
    """One word in a file that only its owner may read and that is replaced in one step.

    A link is followed. `initial` is the word while the file is empty.
    """

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
            timeout=_LOCK_TIMEOUT,
            mode=0o666,  # it is empty, and root may have made it for the user of the file
            poll_interval=_LOCK_POLL_SECONDS,
        )
        try:
            os.makedirs(target.parent, mode=0o700, exist_ok=True)
            lock.acquire()
        except filelock.Timeout:  # must come first: it is an OSError
            raise OctogenTimeoutError(
                f"The {self} cannot be locked ({lock.lock_file}): another process has held it for "
                f"{_LOCK_TIMEOUT:g} s; try again later."
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
        try:
            text = self.path.read_text("ascii").strip()
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        except UnicodeDecodeError:
            problem = "is not text"
        else:
            if word := parsed_word(text or self._initial):
                return word
            problem = "does not hold one word" if text else "is empty"
        # Raised out here, because a UnicodeDecodeError holds what the file holds.
        raise OctogenMCPAuthenticationError(
            f"The {self} {problem}. Run `octogen-dagster login` to write it."
        )

    def write(self, secret: SecretStr) -> None:
        """Replace the word so that it survives a power failure."""
        target = self.path.resolve()
        try:
            remove_abandoned(target, _MAX_WRITE_SECONDS)
            content = f"{secret.get_secret_value()}\n".encode("ascii")
            write_whole(target, content, mode=0o600, keep_owner=True)
        except OSError as error:
            raise OctogenMCPAuthenticationError(
                f"The {self} cannot be replaced: {error.strerror}. Put it into a folder that this "
                "user may write to; a file that is mounted by itself cannot be replaced, its "
                "folder can."
            ) from None

    def exposed_mode(self) -> int | None:
        """Return the permissions of the file if others than its owner may read it."""
        mode = stat.S_IMODE(self.path.stat().st_mode)
        return mode if mode & 0o044 else None


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


class LoginFiles(NamedTuple):
    """The files that a login writes and later logins and refreshes read.

    The redirect URI is the one that the client was registered with. Without its file, every login
    registers a new client.
    """

    refresh_token: SecretFile
    client_id: SecretFile
    redirect_uri: SecretFile | None = None

    @classmethod
    def at(
        cls,
        refresh_token: str | os.PathLike[str] | None = None,
        client_id: str | os.PathLike[str] | None = None,
        redirect_uri: str | os.PathLike[str] | None = None,
    ) -> LoginFiles:
        """Return the files at these paths, and by default those of Octogen's own commands."""
        if redirect_uri is None and client_id is None:
            redirect_uri = REDIRECT_URI_FILE
        return cls(
            SecretFile(refresh_token or REFRESH_TOKEN_FILE, "refresh token"),
            SecretFile(client_id or CLIENT_ID_FILE, "client id"),
            SecretFile(redirect_uri, "redirect URI") if redirect_uri else None,
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
        client_id: Callable[[], str],
        endpoint: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        retry: RetryPolicy = DEFAULT_RETRY,
    ) -> None:
        if isinstance(refresh_token, SecretStr):
            self._held: SecretFile | _SecretInMemory = _SecretInMemory(refresh_token)
        else:
            self._held = refresh_token
        self._client_id = client_id
        self._url = checked_url(endpoint, "The token endpoint")
        self._timeout = timeout
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
        form = {"grant_type": "refresh_token", "client_id": self._client_id()}
        ends_at = time.monotonic() + self._retry.deadline

        def attempt() -> _Issued:
            seconds = max(0.0, min(self._timeout, ends_at - time.monotonic()))
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
                f"{subject} did not answer within {self._timeout:g} s: try again later."
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
    timeout = min(timeout, retry.deadline)
    if token_command and token_command.strip():
        return CommandToken(token_command, timeout)
    if not (refresh_token or refresh_token_file):
        if access_token:
            return GivenToken(access_token)
        refresh_token_file = _last_login()
        client_id_file = client_id_file or CLIENT_ID_FILE
    if not (client_id or client_id_file):
        raise OctogenMCPAuthenticationError(
            "A refresh token belongs to an OAuth client, and its id is missing: set "
            "OCTOGEN_MCP_CLIENT_ID_FILE or OCTOGEN_MCP_CLIENT_ID."
        )
    return _refreshed_token(
        refresh_token=refresh_token,
        refresh_token_file=_absolute(refresh_token_file),
        client_id=client_id,
        client_id_file=_absolute(client_id_file),
        endpoint=token_endpoint or host_token_endpoint(),
        timeout=timeout,
        retry=retry,
    )


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


def parsed_word(value: object) -> SecretStr | None:
    """Return a word of printable ASCII without the blanks around it; None if it is none."""
    text = value.strip() if isinstance(value, str) else ""
    is_word = text.isascii() and text.isprintable() and " " not in text
    return SecretStr(text) if text and is_word else None


@functools.lru_cache(maxsize=16)  # so that the sessions of a process share an access token
def _refreshed_token(
    *,
    refresh_token: str | None,
    refresh_token_file: str | None,
    client_id: str | None,
    client_id_file: str | None,
    endpoint: str,
    timeout: float,
    retry: RetryPolicy,
) -> RefreshedToken:
    held: SecretFile | SecretStr | None
    if refresh_token_file:
        held = SecretFile(refresh_token_file, "refresh token", initial=refresh_token)
    else:
        held = parsed_word(refresh_token)
    if held is None:
        raise OctogenMCPAuthenticationError(
            "The refresh token is not a token: a token is one word, without blanks."
        )

    def read_client_id() -> str:
        if client_id or client_id_file is None:
            return client_id or ""
        return SecretFile(client_id_file, "client id").read().get_secret_value()

    return RefreshedToken(held, read_client_id, endpoint, timeout=timeout, retry=retry)


def _last_login() -> str:
    path = os.path.expanduser(REFRESH_TOKEN_FILE)
    if not os.path.lexists(path):
        raise OctogenMCPAuthenticationError(
            f"There is no login to Octogen's MCP in {REFRESH_TOKEN_FILE}: run `octogen-dagster "
            "login`; or set OCTOGEN_MCP_REFRESH_TOKEN_FILE and OCTOGEN_MCP_CLIENT_ID_FILE to the "
            "files of a login elsewhere, or OCTOGEN_MCP_TOKEN_COMMAND or OCTOGEN_MCP_ACCESS_TOKEN."
        )
    return path


def _absolute(path: str | os.PathLike[str] | None) -> str | None:
    return os.path.abspath(os.path.expanduser(path)) if path else None


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
    if status == 429 or status >= 500:
        kind = OctogenMCPRateLimitError if status == 429 else OctogenMCPError
        wait = retry_after_seconds(response.headers)
        raise kind(f"{subject} answered {status}: try again later.", retry_after=wait or 0.0)
    code = body.get("error")
    if status in (400, 401, 403) and isinstance(code, str) and re.fullmatch("[a-z_]{1,40}", code):
        raise OctogenMCPAuthenticationError(
            f"{subject} refused ({status} {code!r}): the refresh token or the client id is not "
            "valid any more. Run `octogen-dagster login` to log in again."
        )
    raise OctogenMCPError(
        f"{subject} answered {status} and no tokens: check the address of the token endpoint."
    )
