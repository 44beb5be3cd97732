"""Runs checks side by side, each bounded in time and apart from the failures of the others."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from typing import TYPE_CHECKING, TypeVar

from octogen_dagster.background import submit, wait_interruptibly
from octogen_dagster.doctor.findings import Finding
from octogen_dagster.errors import OctogenError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

_LOGGER = logging.getLogger(__name__)
_Result = TypeVar("_Result")


def run_checks(
    checks: Mapping[str, Callable[[], Generator[Finding, None, object]]], timeout: float
) -> list[Finding]:
    """Run checks at the same time and return their findings, in the order of the checks.

    What a check has found before it fails or its time is over is kept. A check whose time is over
    ends with the step that it is at.

    Args:
        checks: The checks, by the subject that a failure is reported for.
        timeout: Seconds for all of them.
    """
    ends_at = time.monotonic() + timeout
    found: dict[str, list[Finding]] = {subject: [] for subject in checks}
    futures = {
        subject: submit(
            functools.partial(_collect, guarded(subject, check), found[subject], ends_at),
            "octogen-doctor",
        )
        for subject, check in checks.items()
    }
    findings: list[Finding] = []
    for subject, future in futures.items():
        wait_interruptibly(future, ends_at - time.monotonic())
        is_done = future.done()
        findings += found[subject]
        if not is_done:
            findings.append(
                Finding(
                    subject,
                    "failed",
                    f"the check did not end within {timeout:g} s.",
                    "Check the network and the addresses, or give it a longer timeout.",
                )
            )
    return findings


def guarded(
    subject: str, check: Callable[[], Generator[Finding, None, _Result]]
) -> Generator[Finding, None, _Result | None]:
    """Run a check whose failure is a finding.

    Args:
        subject: The subject that a failure is reported for.
        check: The check.

    Returns:
        What the check returns; None if it fails.
    """
    try:
        return (yield from check())
    except (OctogenError, ValueError) as error:
        yield Finding(subject, "failed", str(error))
    except Exception as error:
        # The text of an unexpected error may quote a secret.
        _LOGGER.debug("The check of %s failed.", subject, exc_info=True)
        yield Finding(
            subject,
            "failed",
            f"the check itself failed with a {type(error).__name__}.",
            f"Report it with the traceback, which the logger {__name__} has at level DEBUG.",
        )
    return None


def _collect(check: Generator[Finding, None, object], found: list[Finding], ends_at: float) -> None:
    with contextlib.closing(check):
        for finding in check:
            found.append(finding)  # one by one, so that those before a hang are kept
            if time.monotonic() > ends_at:
                return
