"""Errors of a command: one line on stderr and an exit status, and a traceback with `--debug`."""

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

_MAY_BE_A_DEFECT = "If your input is right, this is a defect: add --debug to see its traceback."

debug_option = click.option("--debug", is_flag=True, help="Show the traceback of an error.")
"""The option of a command that ends with `fail`."""


def reporting_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate the function of a command so that an expected error ends it without a traceback.

    Exit statuses: 1 failed, 2 bad input, 3 access to the listing is still pending. The command gets
    the option `--debug`.
    """

    @functools.wraps(command)
    def run(*, debug: bool, **options: Any) -> None:
        # The `mcp` package logs its failures. The error that follows says the same.
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
    """Print the traceback of an error that is shown and a message on stderr; end the process."""
    from octogen_dagster.api.credentials import key_mask

    lines = traceback.format_exception(shown) if shown else []  # without the values of variables
    click.echo(printable_lines(key_mask(None)("".join([*lines, message]))), err=True)
    sys.exit(status)


def import_from_sandbox_extra(module: str) -> Any:
    """Import a module that needs the extra `sandbox`."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if "octogen-dagster[sandbox]" in str(error):
            raise click.ClickException(str(error)) from error
        raise


def _is_for_the_user(error: ValueError) -> bool:
    """True if a `raise` statement of this package made the error, and not a call that failed."""
    if isinstance(error, OctogenError):
        return True
    *_, last = traceback.extract_tb(error.__traceback__)
    return _PACKAGE in Path(last.filename).parents and (last.line or "").startswith("raise ")


@contextlib.contextmanager
def _exiting_on_sigterm() -> Iterator[None]:
    """Make SIGTERM end the process like Ctrl-C, so that a new refresh token is stored first."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
