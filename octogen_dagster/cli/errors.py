"""Errors of a command: one line on stderr and an exit status."""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from octogen_dagster.errors import OctogenBigQueryAccessPendingError, OctogenError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FAILED, BAD_INPUT, ACCESS_PENDING = 1, 2, 3


def reporting_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate the function of a command so that an expected error ends it without a traceback.

    Exit statuses: 1 failed, 2 bad input, 3 access to the listing is still pending.
    """

    @functools.wraps(command)
    def run(**options: Any) -> None:
        # The `mcp` package logs its failures. The error that follows says the same.
        logging.getLogger("mcp").setLevel(logging.CRITICAL)
        try:
            with _exiting_on_sigterm():
                command(**options)
        except OctogenBigQueryAccessPendingError as error:
            fail(f"Not yet: {error}", ACCESS_PENDING)
        except ValueError as error:
            fail(f"Error: {error}", BAD_INPUT)
        except OctogenError as error:
            fail(f"Error: {error}", FAILED)

    return run


def fail(message: str, status: int) -> NoReturn:
    """Print a message on stderr and end the process.

    Args:
        message: The message.
        status: The exit status.
    """
    click.echo(message, err=True)
    sys.exit(status)


@contextlib.contextmanager
def _exiting_on_sigterm() -> Iterator[None]:
    """Make SIGTERM end the process like Ctrl-C, so that a new refresh token is stored first."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
