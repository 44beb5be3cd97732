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

from octogen_dagster.control_plane.error_output import MAX_SIZE, shown_error_output
from octogen_dagster.control_plane.parsing import parsed_object, parsed_token
from octogen_dagster.control_plane.retry import DEFAULT_TIMEOUT
from octogen_dagster.errors import OctogenMCPAuthenticationError

if TYPE_CHECKING:
    from pydantic import SecretStr

_MAX_OUTPUT_SIZE = 100_000
_POLL_SECONDS = 0.05


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
            self._token = self._run()
        if self._token == refused:
            raise OctogenMCPAuthenticationError(
                f"The {self._name} printed the access token that was just refused: it must print a "
                "fresh one each time."
            )
        return self._token

    def _run(self) -> SecretStr:
        try:
            output, errors = _run(self._words, self._timeout)
        except _CommandError as error:
            problem = f"The {self._name} {error}: run it by hand.{error.quoted}"
        else:
            if token := _parsed_output(output):
                return token
            problem = (
                f"What the {self._name} printed is not a token: a token is one word, without "
                f"blanks.{_quoted(errors, output)}"
            )
        # Raised out here, because frames in the traceback of the first error hold the output.
        raise OctogenMCPAuthenticationError(problem)


def _quoted(errors: bytes, output: bytes) -> str:
    shown = shown_error_output(errors, output)
    return f" Its error output: {shown}" if shown else ""


class _CommandError(Exception):
    """What went wrong with a command.

    Args:
        problem: The end of a sentence about the command.
        quoted: The sentence that quotes its error output.
    """

    def __init__(self, problem: str, quoted: str = "") -> None:
        super().__init__(problem)
        self.quoted = quoted


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


def _run(words: list[str], timeout: float) -> tuple[bytes, bytes]:
    """Run a command, and return what it printed and the end of its error output.

    Raises:
        _CommandError: The command cannot be started, fails, prints too much or takes too long.
            It is killed, with all the processes of its group.
    """
    try:
        process = subprocess.Popen(  # noqa: S603
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise _CommandError(f"cannot be started ({error.strerror})") from None
    assert process.stdout
    assert process.stderr
    with process.stdout, process.stderr:
        pipes = _Pipes(process.stdout.fileno(), process.stderr.fileno())
        try:
            status = pipes.read_until_exit(process, time.monotonic() + timeout)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, TimeoutError | subprocess.TimeoutExpired):
                raise _CommandError(
                    f"printed no token within {timeout:g} s and was stopped",
                    _quoted(pipes.errors, pipes.output),
                ) from None
            raise
    if status:
        raise _CommandError(
            f"failed with exit status {status}", _quoted(pipes.errors, pipes.output)
        )
    return pipes.output, pipes.errors


class _Pipes:
    """What a process prints, as far as it is needed.

    Args:
        stdout: The descriptor of its output.
        stderr: The descriptor of its error output.

    Attributes:
        output: Its output.
        errors: The end of its error output.
    """

    def __init__(self, stdout: int, stderr: int) -> None:
        self._stdout = stdout
        self._stderr = stderr
        self.output = b""
        self.errors = b""

    def read_until_exit(self, process: subprocess.Popen[bytes], ends_at: float) -> int:
        """Read until the output has ended and the process has exited, and return its status.

        The error output need not end: another process may keep it open.

        Raises:
            TimeoutError: The output does not end in time, because a process keeps it open.
            subprocess.TimeoutExpired: The process does not exit in time.
            _CommandError: The output is too long for a token.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            selector.register(self._stderr, selectors.EVENT_READ)
            while selector.get_map():
                is_over = self._stdout not in selector.get_map() and process.poll() is not None
                wait = 0.0 if is_over else min(_POLL_SECONDS, ends_at - time.monotonic())
                if wait < 0:
                    raise TimeoutError
                ready = selector.select(wait)
                for key, _ in ready:
                    if not self._read(key.fd):
                        selector.unregister(key.fd)
                if is_over and not ready:
                    break
        return process.wait(max(0.0, ends_at - time.monotonic()))

    def _read(self, pipe: int) -> bool:
        """Read what is there; False at the end of the pipe."""
        part = os.read(pipe, _MAX_OUTPUT_SIZE)
        if pipe == self._stderr:
            self.errors = (self.errors + part)[-MAX_SIZE:]
        else:
            self.output += part
        if len(self.output) > _MAX_OUTPUT_SIZE:
            raise _CommandError(f"printed more than {_MAX_OUTPUT_SIZE:,} bytes and was stopped")
        return bool(part)


def _parsed_output(output: bytes) -> SecretStr | None:
    """Return the `access_token` of a JSON object, or else the first line."""
    text = output.strip()
    if text.startswith(b"{"):
        return parsed_token(parsed_object(text).get("access_token"))
    return parsed_token(text.partition(b"\n")[0].decode("utf-8", "replace"))
