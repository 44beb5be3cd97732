"""Runs checks side by side, each bounded in time and apart from the failures of the others."""

from __future__ import annotations

import functools
import logging
import time
from typing import TYPE_CHECKING

from octogen_dagster.background import submit, wait_interruptibly
from octogen_dagster.doctor.findings import Finding
from octogen_dagster.errors import OctogenError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_LOGGER = logging.getLogger(__name__)


def run_checks(
    checks: Mapping[str, Callable[[], Iterable[Finding]]], timeout: float
) -> list[Finding]:
    """Run checks at the same time and return their findings, in the order of the checks.

    What a check has found before it fails or its time is over is kept.

    Args:
        checks: The checks, by the subject that a failure is reported for.
        timeout: Seconds for all of them.
    """
    ends_at = time.monotonic() + timeout
    found: dict[str, list[Finding]] = {subject: [] for subject in checks}
    futures = {
        subject: submit(functools.partial(_collect, check, found[subject]), "octogen-doctor")
        for subject, check in checks.items()
    }
    findings: list[Finding] = []
    for subject, future in futures.items():
        wait_interruptibly(future, ends_at - time.monotonic())
        done = future.done()
        findings += found[subject]
        if not done:
            findings.append(
                Finding(
                    subject,
                    "failed",
                    f"the check did not end within {timeout:g} s.",
                    "Check the network and the addresses, or give it a longer timeout.",
                )
            )
        elif error := future.exception():
            findings.append(_failure(subject, error))
    return findings


def _collect(check: Callable[[], Iterable[Finding]], found: list[Finding]) -> None:
    for finding in check():
        found.append(finding)  # one by one, so that those before a failure are kept


def _failure(subject: str, error: BaseException) -> Finding:
    if isinstance(error, OctogenError | ValueError):
        return Finding(subject, "failed", str(error))
    # The text of an unexpected error may quote a secret.
    _LOGGER.debug("The check of %s failed.", subject, exc_info=error)
    return Finding(
        subject,
        "failed",
        f"the check itself failed with a {type(error).__name__}.",
        "Report it with the traceback, which is in the log of octogen_dagster.doctor at level "
        "DEBUG.",
    )
