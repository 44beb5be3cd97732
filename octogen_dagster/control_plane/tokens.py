"""Access tokens for Octogen's MCP: given, printed by a command, or had for a refresh token."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import selectors
import shlex
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Protocol

from octogen_dagster.background import run_uninterrupted
from octogen_dagster.control_plane.retry import DEFAULT_DEADLINE
from octogen_dagster.control_plane.secret_files import SecretFile
from octogen_dagster.control_plane.token_endpoint import (
    DEFAULT_TOKEN_ENDPOINT,
    Grant,
    TokenEndpoint,
    secret,
)
from octogen_dagster.errors import OctogenMCPAuthenticationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import SecretStr

DEFAULT_TIMEOUT = 30.0
_MIN_LIFETIME_SECONDS = 30.0
_MAX_OUTPUT_SIZE = 100_000
_LOGGER = logging.getLogger(__name__)


class AccessTokens(Protocol):
    """Where access tokens come from."""

    def token(self, refused: SecretStr | None = None) -> SecretStr:
        """A token to use now.

        Args:
            refused: The token that the service has just refused; it will not be given again.

        Raises:
            OctogenMCPAuthenticationError: There is none.
            OctogenMCPError: Who gives them failed.
            OctogenConnectionError: Who gives them does not answer.
        """


class GivenToken:
    """One access token; when it has expired, that is the end.

    Raises:
        OctogenMCPAuthenticationError: It cannot be a token.
    """

    def __init__(self, access_token: str) -> None:
        self._token = _checked(secret(access_token), "The access token that was given")

    def token(self, refused: SecretStr | None = None) -> SecretStr:
        if refused is None:
            return self._token
        raise OctogenMCPAuthenticationError(
            "The access token is refused; they live for some five minutes. Give a new one, or a "
            "refresh token file, which lasts: `octogen-mcp-login` writes it."
        )


class CommandToken:
    """An access token that a command prints, bare or as JSON with `access_token`.

    Args:
        command: Program and arguments; no shell is involved.
        timeout: Seconds it may take.

    Raises:
        ValueError: The command is empty, has a quote that is not closed, or begins with what only
            a shell understands.
    """

    def __init__(self, command: str, timeout: float = DEFAULT_TIMEOUT) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise ValueError(f"The token command cannot be split into words: {error}.") from None
        if not self._words:
            raise ValueError("The token command is empty.")
        variable, is_assignment, _ = self._words[0].partition("=")
        if is_assignment:
            raise ValueError(
                f"The token command begins with an assignment to {variable!r}, and no shell is "
                f"involved: let it begin with `env {variable}=…`, or name a script."
            )
        self._name = f"token command {self._words[0]!r}"
        self._timeout = timeout
        self._token: SecretStr | None = None

    def token(self, refused: SecretStr | None = None) -> SecretStr:
        if self._token is None or self._token == refused:
            self._token = _checked(self._run(), f"What the {self._name} printed")
        if self._token == refused:
            raise OctogenMCPAuthenticationError(
                f"The {self._name} printed the access token that was just refused: it must print a "
                "fresh one each time."
            )
        return self._token

    def _run(self) -> SecretStr | None:
        problem, token = _printed_by(self._words, self._timeout)
        if problem:
            raise OctogenMCPAuthenticationError(f"The {self._name} {problem}: run it by hand.")
        return token


class RefreshedToken:
    """Access tokens had for a refresh token, which the service may replace each time.

    The replacement is stored before anything else is done with the answer, an interrupt included,
    and no other process uses the file meanwhile. That the file can be replaced is tried before the
    old token is spent.

    Args:
        refresh_token: The file that holds it; or the token itself, whose replacement is lost when
            this process ends.
        client_id: Gives the id of the public OAuth client that the refresh token belongs to.
        endpoint: The token endpoint.
        timeout: Seconds for one request.
        deadline: Seconds for a refresh with all its tries.

    Raises:
        OctogenMCPAuthenticationError: The refresh token cannot be one.
        ValueError: The endpoint is not a URL that a token may be sent to.
    """

    def __init__(
        self,
        refresh_token: SecretFile | str,
        client_id: Callable[[], str],
        endpoint: str = DEFAULT_TOKEN_ENDPOINT,
        timeout: float = DEFAULT_TIMEOUT,
        deadline: float = DEFAULT_DEADLINE,
    ) -> None:
        if isinstance(refresh_token, SecretFile):
            self._refresh_token: SecretFile | SecretStr = refresh_token
        else:
            self._refresh_token = _checked(secret(refresh_token), "The refresh token")
        self._client_id = client_id
        self._endpoint = TokenEndpoint(endpoint, timeout=timeout, deadline=deadline)
        self._guard = threading.Lock()
        self._token: SecretStr | None = None
        self._good_until = -math.inf

    def token(self, refused: SecretStr | None = None) -> SecretStr:
        with self._guard:
            if self._token in (None, refused) or time.monotonic() > self._good_until:
                self._renew()
            return _checked(self._token, "What the token endpoint gave as access token")

    def _renew(self) -> None:
        self._token = None
        grant = run_uninterrupted(
            self._refreshed,
            "The token endpoint may be replacing the refresh token: its answer is waited for, so "
            "that the new one is not lost.",
        )
        life = math.inf if grant.seconds is None else grant.seconds
        self._good_until = time.monotonic() + max(life - _MIN_LIFETIME_SECONDS, life / 2)
        self._token = grant.access_token

    def _refreshed(self) -> Grant:
        if isinstance(self._refresh_token, SecretFile):
            return self._refresh_from_file(self._refresh_token)
        return self._refresh_from_memory(self._refresh_token)

    def _refresh_from_file(self, file: SecretFile) -> Grant:
        with file.locked():
            old = file.read()
            file.write(old)
            try:
                grant = self._refresh(old)
            except OctogenMCPAuthenticationError:
                now = file.read()
                if now == old:
                    raise
                # Somebody who does not lock the file replaced the token at the same moment.
                grant = self._refresh(now)
            if grant.refresh_token is not None:
                _replace(file, grant.refresh_token)
            return grant

    def _refresh_from_memory(self, old: SecretStr) -> Grant:
        grant = self._refresh(old)
        if grant.refresh_token not in (None, old):
            self._refresh_token = grant.refresh_token
            _LOGGER.warning(
                "Octogen replaced the refresh token, and the new one is lost when this process "
                "ends: keep the refresh token in a file."
            )
        return grant

    def _refresh(self, refresh_token: SecretStr) -> Grant:
        return self._endpoint.refresh(self._client_id(), refresh_token)


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
    deadline: float = DEFAULT_DEADLINE,
) -> AccessTokens:
    """Where access tokens come from, by what was configured; the first that is there counts.

    Args:
        token_command: A command that prints an access token.
        client_id: The public OAuth client of the refresh token.
        client_id_file: The file that holds it.
        refresh_token: A refresh token.
        refresh_token_file: The file that holds it, where its replacements are stored.
        token_endpoint: Where refresh tokens are sent; by default Octogen's.
        access_token: An access token; it lives for minutes.
        timeout: Seconds for one request, and for the command.
        deadline: Seconds for a refresh with all its tries.

    Raises:
        OctogenMCPAuthenticationError: Nothing was configured, or half of it.
        ValueError: The command or the endpoint cannot be one.
    """
    if token_command:
        return CommandToken(token_command, timeout)
    held: SecretFile | str | None = refresh_token
    if refresh_token_file:
        held = SecretFile(refresh_token_file, "refresh token")
    if not held and access_token:
        return GivenToken(access_token)
    if not held:
        raise OctogenMCPAuthenticationError(
            "Nothing opens Octogen's MCP: run `octogen-mcp-login` and set "
            "OCTOGEN_MCP_REFRESH_TOKEN_FILE and OCTOGEN_MCP_CLIENT_ID_FILE to the files it "
            "writes; or set OCTOGEN_MCP_TOKEN_COMMAND or OCTOGEN_MCP_ACCESS_TOKEN."
        )
    return RefreshedToken(
        held,
        _client_id(client_id, client_id_file),
        token_endpoint or DEFAULT_TOKEN_ENDPOINT,
        timeout,
        deadline,
    )


def _client_id(
    client_id: str | None, client_id_file: str | os.PathLike[str] | None
) -> Callable[[], str]:
    if client_id_file:
        file = SecretFile(client_id_file, "client id")
        return lambda: file.read().get_secret_value()
    if client_id:
        return lambda: client_id
    raise OctogenMCPAuthenticationError(
        "A refresh token belongs to an OAuth client, and its id is missing: set "
        "OCTOGEN_MCP_CLIENT_ID_FILE or OCTOGEN_MCP_CLIENT_ID."
    )


def _printed_by(words: list[str], timeout: float) -> tuple[str, SecretStr | None]:
    """What went wrong with a command, and the token in what it printed."""
    try:
        process = subprocess.Popen(  # noqa: S603
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        return f"cannot be started ({error.strerror})", None
    ends_at = time.monotonic() + timeout
    assert process.stdout
    try:
        with process.stdout as pipe:
            output = _read_all(pipe.fileno(), ends_at)
        status = process.wait(max(0.0, ends_at - time.monotonic()))
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with what it started
        process.wait()
        if isinstance(error, TimeoutError | subprocess.TimeoutExpired):
            return f"printed no token within {timeout:g} s and was stopped", None
        if isinstance(error, _TooMuchError):
            return f"printed more than {_MAX_OUTPUT_SIZE:,} bytes and was stopped", None
        raise
    if status:
        return f"failed with exit status {status}", None
    text = output.decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "", secret(text)
    return "", secret(value.get("access_token") if isinstance(value, dict) else text)


def _read_all(pipe: int, ends_at: float) -> bytes:
    """What is written into a pipe.

    Raises:
        TimeoutError: Its end does not come in time: somebody holds it open.
        _TooMuchError: It is too much to be a token.
    """
    output = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while selector.select(max(0.0, ends_at - time.monotonic())):
            part = os.read(pipe, _MAX_OUTPUT_SIZE)
            if not part:
                return output
            output += part
            if len(output) > _MAX_OUTPUT_SIZE:
                raise _TooMuchError
    raise TimeoutError


class _TooMuchError(Exception):
    pass


def _replace(file: SecretFile, refresh_token: SecretStr) -> None:
    try:
        file.write(refresh_token)
    except OctogenMCPAuthenticationError as error:
        raise OctogenMCPAuthenticationError(
            f"{error} The token in it is spent now: then run `octogen-mcp-login` again."
        ) from None


def _checked(token: SecretStr | None, subject: str) -> SecretStr:
    if token is None:
        raise OctogenMCPAuthenticationError(
            f"{subject} is not a token: a token is one word, without blanks."
        )
    return token
