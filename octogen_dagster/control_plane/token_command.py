"""A command that prints an access token."""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from octogen_dagster.control_plane.parsing import parsed_object, parsed_token, required_token
from octogen_dagster.control_plane.retry import DEFAULT_TIMEOUT
from octogen_dagster.errors import OctogenMCPAuthenticationError

if TYPE_CHECKING:
    from pydantic import SecretStr

_MAX_OUTPUT_SIZE = 100_000


class CommandToken:
    """The access token that a command prints, as its first line or as JSON with `access_token`.

    The command runs when a token is first needed, and again when the service refused its token.

    Args:
        command: The program and its arguments. No shell is involved.
        timeout: Seconds that the command may take.

    Raises:
        ValueError: The command is empty, has a quote that is not closed, or begins with an
            assignment, which only a shell understands.
    """

    def __init__(self, command: str, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._words = _split_command(command)
        self._name = f"token command {self._words[0]!r}"
        self._timeout = timeout
        self._token: SecretStr | None = None

    def token(self, refused: SecretStr | None = None) -> SecretStr:
        """See `AccessTokens.token`."""
        if self._token is None or self._token == refused:
            self._token = required_token(self._run(), f"What the {self._name} printed")
        if self._token == refused:
            raise OctogenMCPAuthenticationError(
                f"The {self._name} printed the access token that was just refused: it must print a "
                "fresh one each time."
            )
        return self._token

    def _run(self) -> SecretStr | None:
        try:
            output = _run(self._words, self._timeout)
        except _CommandError as error:
            problem = str(error)
        else:
            return _parsed_output(output)
        # Raised out here, because frames in the traceback of the first error hold the output.
        raise OctogenMCPAuthenticationError(f"The {self._name} {problem}: run it by hand.")


class _CommandError(Exception):
    """What went wrong with a command, as the end of a sentence."""


def _split_command(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(
            f"The token command cannot be split into words: {error}. Correct its quotes."
        ) from None
    if not words:
        raise ValueError("The token command is empty: name a program, or leave it unset.")
    variable, is_assignment, _ = words[0].partition("=")
    if is_assignment:
        raise ValueError(
            f"The token command begins with an assignment to {variable!r}, and no shell is "
            f"involved: let it begin with `env {variable}=…`, or name a script."
        )
    return words


def _run(words: list[str], timeout: float) -> bytes:
    """Run a command and return what it printed.

    Raises:
        _CommandError: The command cannot be started, fails, prints too much or takes too long.
            It is killed, with all the processes of its group.
    """
    try:
        process = subprocess.Popen(  # noqa: S603
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        raise _CommandError(f"cannot be started ({error.strerror})") from None
    ends_at = time.monotonic() + timeout
    assert process.stdout
    try:
        with process.stdout as pipe:
            output = _read_all(pipe.fileno(), ends_at)
        status = process.wait(max(0.0, ends_at - time.monotonic()))
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, TimeoutError | subprocess.TimeoutExpired):
            raise _CommandError(f"printed no token within {timeout:g} s and was stopped") from None
        raise
    if status:
        raise _CommandError(f"failed with exit status {status}")
    return output


def _read_all(pipe: int, ends_at: float) -> bytes:
    """Read a pipe to its end.

    Raises:
        TimeoutError: The end does not come in time, because a process keeps the pipe open.
        _CommandError: The output is too long for a token.
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
                raise _CommandError(f"printed more than {_MAX_OUTPUT_SIZE:,} bytes and was stopped")
    raise TimeoutError


def _parsed_output(output: bytes) -> SecretStr | None:
    """Return the `access_token` of a JSON object, or else the first line."""
    text = output.strip()
    if text.startswith(b"{"):
        return parsed_token(parsed_object(text).get("access_token"))
    return parsed_token(text.partition(b"\n")[0].decode("utf-8", "replace"))
