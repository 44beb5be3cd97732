"""Provides access tokens for Octogen's MCP: a fixed token, or a token that a command prints.

Also retries calls.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import shlex
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from pydantic import SecretStr

from octogen_dagster.api.credentials import parsed_word
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.background import Deadline, submit, wait_interruptibly
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenMCPAuthenticationError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
    OctogenTimeoutError,
)

DEFAULT_TIMEOUT = 30.0
"""Time limit for a tool call or a token command, in seconds."""

DEFAULT_RETRY = RetryPolicy(attempts=5, deadline=120.0, max_delay=10.0)

_MAX_PRINTED_BYTES = 1 << 20
_Value = TypeVar("_Value")


class Issued(NamedTuple):
    """An access token and its renewal time on the `time.monotonic` clock."""

    token: SecretStr
    renewed_at: float = math.inf


class AccessToken:
    """The access token that all sessions in a process share.

    `obtain` returns a new token before the caller's deadline. If `obtain` returns the token that
    the service has just rejected, an error with the text `refused` is raised.
    """

    def __init__(self, obtain: Callable[[Deadline], Issued], refused: str) -> None:
        self._obtain = obtain
        self._refused = refused
        self._guard = threading.Lock()
        self._issued: Issued | None = None

    def get(self, within: Deadline, refused: SecretStr | None = None) -> SecretStr:
        """Return a valid token. Never return the token `refused`, which was just rejected."""
        if not self._guard.acquire(timeout=within.left):
            raise OctogenTimeoutError(
                f"Another thread did not get an access token within {within.seconds:g} s. Try "
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
    """Return a source for a fixed access token. When the token expires, calls raise an error."""
    token = parsed_word(access_token.get_secret_value())
    if token is None:
        raise OctogenMCPAuthenticationError(
            "The access token is malformed. A token is a single word without whitespace."
        )
    return AccessToken(
        lambda _: Issued(token),
        "The access token was rejected. Access tokens expire after about five minutes. Set a new "
        "token, or use the refresh token file that `octogen-dagster login` writes.",
    )


class TokenCommand:
    """A command that prints a token on its first line, or JSON with the key `access_token`.

    The command's output and arguments might contain secrets. Errors never quote the output. The
    arguments are stored in an object, because some tracebacks show local variables.
    """

    def __init__(self, command: str, timeout: float = DEFAULT_TIMEOUT) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise ValueError(
                f"The token command cannot be parsed: {error}. Fix the quoting."
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
                wait_interruptibly(printed, within.left)  # a child process may keep the pipe open
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
                problem = "printed no token (a single word without whitespace)"
            del process, printed  # keep their content out of tracebacks that show locals
        raise OctogenMCPAuthenticationError(
            f"The token command {problem}. To find the cause, run it manually without a shell."
        )


def _printed_token(output: bytes) -> SecretStr | None:
    text = output.decode("utf-8", "replace").strip()
    if text.startswith("{"):
        return parsed_word(parsed_object(text).get("access_token"))
    return parsed_word(text.partition("\n")[0])


def with_retries(
    call: Callable[[], _Value], within: Deadline, *, repeatable: bool = True
) -> _Value:
    """Make a call, and retry transient failures until the deadline.

    A call that is not `repeatable` is retried only after a rate limit error, because in that case
    the call was not executed.
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


def parsed_object(content: str | bytes) -> dict[str, Any]:
    """Parse a JSON object; return an empty dict if the content is not a JSON object."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
