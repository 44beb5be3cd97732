"""Command errors: one line on stderr and an exit status. `--debug` adds the traceback."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from octogen_dagster.errors import OctogenBigQueryAccessPendingError, OctogenError
from octogen_dagster.printable import printable_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FAILED, BAD_INPUT, ACCESS_PENDING = 1, 2, 3
_PACKAGE = Path(__file__).parents[1]

_MAY_BE_A_DEFECT = (
    "If your input is valid, this is a bug in octogen-dagster. To see the traceback, add --debug."
)

debug_option = click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
"""The `--debug` option, for commands that call `fail`."""


def reporting_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command to report errors without a traceback, and add the `--debug` option.

    The exit status is 1 on failure, 2 for bad input and 3 if access to the listing is pending.
    """

    @functools.wraps(command)
    def run(*, debug: bool, **options: Any) -> None:
        # The `mcp` package also logs each failure that it raises as an error.
        logging.getLogger("mcp").setLevel(logging.CRITICAL)
        try:
            with _exiting_on_sigterm():
                command(**options)
        except OctogenBigQueryAccessPendingError as error:
            fail(f"Not yet: {error}", ACCESS_PENDING, error if debug else None)
        except ValueError as error:
            hint = "" if debug or _is_for_the_user(error) else f"\n{_MAY_BE_A_DEFECT}"
            text = str(error) or type(error).__name__
            fail(f"Error: {text}{hint}", BAD_INPUT, error if debug else None)
        except OctogenError as error:
            fail(f"Error: {error}", FAILED, error if debug else None)

    return debug_option(run)


def fail(message: str, status: int, shown: BaseException | None = None) -> NoReturn:
    """Print a message to stderr and exit.

    If an error is passed as `shown`, its traceback is printed before the message.
    """
    from octogen_dagster.api.credentials import key_mask

    lines = traceback.format_exception(shown) if shown else []  # without variable values
    click.echo(printable_lines(key_mask(None)("".join([*lines, message]))), err=True)
    sys.exit(status)


def import_from_sandbox_extra(module: str) -> Any:
    """Import a module that requires the `sandbox` extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if "octogen-dagster[sandbox]" in str(error):
            raise click.ClickException(str(error)) from error
        raise


def _is_for_the_user(error: ValueError) -> bool:
    """Return True if the error was raised in this package rather than in a library."""
    if isinstance(error, OctogenError):
        return True
    *_, last = traceback.extract_tb(error.__traceback__)
    return _PACKAGE in Path(last.filename).parents and (last.line or "").startswith("raise ")


@contextlib.contextmanager
def _exiting_on_sigterm() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C.

    If a new refresh token was received, it is stored before the process exits.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
