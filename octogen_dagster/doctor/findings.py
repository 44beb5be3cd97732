"""The classes Finding and Diagnosis, and the function that runs checks concurrently."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any, Literal, TypeAlias, TypeVar

import dagster as dg
from pydantic import BaseModel

from octogen_dagster.background import submit
from octogen_dagster.errors import OctogenError

Status = Literal["ok", "warning", "failed", "blocked", "skipped"]
_SIGNAL_POLL_SECONDS = 0.2
_SERVICE_CHECKS = ("Versions", "Octogen", "Questions")
_LOGGER = logging.getLogger(__name__)
_Result = TypeVar("_Result")
_Resource = TypeVar("_Resource", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check for one subject.

    Attributes:
        subject: The subject, such as "Octogen key".
        status: "ok"; "warning" if it works but might be wrong; "failed" if it does not work;
            "blocked" if the service rejects requests until you add credit or correct the API key
            or the host; "skipped" if it was not checked.
        message: The result. If it is an error message, it might include the remedy.
        advice: The remedy; empty if no remedy is needed or the message includes it.
        missing: The `diagnose` argument that is required to check the subject; empty if the subject
            was checked.
        details: More information with the names of catalogs and products, which the message omits;
            usually empty.
        names: The names of organizations, shops and catalogs that occur in the message. They could
            identify the user.
    """

    subject: str
    status: Status
    message: str
    advice: str = ""
    missing: str = ""
    details: str = ""
    names: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as a dictionary of JSON values."""
        values = dataclasses.asdict(self)
        del values["names"]
        return values

    def __str__(self) -> str:
        advice = f" {self.advice}" if self.advice else ""
        details = f" Details: {self.details}" if self.details else ""
        return f"{self.status:<7}  {self.subject}: {self.message}{advice}{details}"


Check: TypeAlias = Generator[Finding, None, None]
"""A running check, which yields findings."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The findings from all checks. `str(diagnosis)` has one line for each finding.

    Attributes:
        findings: The findings, ordered by subject.
    """

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """True if no finding has the status "failed" or "blocked"."""
        return all(finding.status not in ("failed", "blocked") for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return the diagnosis as a dictionary of JSON values."""
        return {"ok": self.ok, "findings": [each.as_dict() for each in self.findings]}

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))


def not_given(subject: str, resource: str) -> Finding:
    said = f"not checked, because there is no resource `{resource}`."
    return Finding(subject, "skipped", said, missing=resource)


def anonymous(check: str, finding: Finding) -> Finding:
    """Return a copy of a finding that is safe to share.

    `check` is the key of the check that yielded the finding. Findings about the service keep their
    message, but `names` are removed from it. All other findings keep only their status, because
    their messages contain folders, projects, principals and tables.
    """
    names, finding = finding.names, replace(finding, details="", names=())
    if not check.startswith(_SERVICE_CHECKS) and not finding.missing:
        subject = finding.subject.partition(" (")[0]  # drops the resource or pool name
        text = "for more information, add --details."
        return replace(finding, subject=subject, message=text, advice="")
    for name in sorted(names, key=len, reverse=True):
        finding = replace(
            finding,
            message=finding.message.replace(name, "…"),
            advice=finding.advice.replace(name, "…"),
        )
    return finding


def resolved(resource: _Resource) -> _Resource:
    """Return a resource with the values of its environment variables filled in."""
    values: dict[str, str] = {}
    for field, value in resource:
        if isinstance(value, dg.EnvVar):
            variable = value.env_var_name
            if variable not in os.environ:
                raise ValueError(
                    f"{type(resource).__name__} reads {field} from the environment variable "
                    f"{variable}, which is not set. Set it where the code runs."
                )
            values[field] = os.environ[variable]
    return resource.model_copy(update=values) if values else resource


def run_checks(
    checks: Mapping[str, Callable[[], Check]], timeout: float
) -> Iterator[tuple[str, Finding]]:
    """Run checks concurrently. Yield each finding as soon as it arrives, with the check's key.

    Findings that arrived before a failure or timeout are kept. After a timeout, a check ends as
    soon as its current step ends. If a check fails, its key is the subject of the finding.
    """
    ends_at = time.monotonic() + timeout
    found: SimpleQueue[tuple[str, Finding | None]] = SimpleQueue()
    for subject, check in checks.items():
        submit(functools.partial(_run, subject, check, found, ends_at), "octogen-doctor")
    running = dict.fromkeys(checks)
    while running:
        left = ends_at - time.monotonic()
        try:  # in steps, because a waiting thread does not handle signals
            subject, finding = found.get(timeout=max(0.0, min(left, _SIGNAL_POLL_SECONDS)))
        except Empty:
            if left <= 0:
                break
        else:
            if finding:
                yield subject, finding
            else:
                del running[subject]
    said = f"the check timed out after {timeout:g} s."
    for subject in running:
        yield subject, Finding(subject, "failed", said, "Check the network and the URLs.")


def guarded(
    subject: str, check: Generator[Finding, None, _Result]
) -> Generator[Finding, None, _Result | None]:
    """Run a check and return its result.

    If the check fails, yield a finding about the failure and return None.
    """
    try:
        return (yield from check)
    except (OctogenError, ValueError) as error:
        yield Finding(subject, "failed", str(error))
    except Exception as error:
        # The text of an unexpected error might contain a secret.
        _LOGGER.debug("The check %s failed.", subject, exc_info=True)
        yield Finding(
            subject,
            "failed",
            f"the check itself failed with {type(error).__name__}.",
            "Report this problem with the traceback. To log the traceback, set the logger "
            f"{__name__} to DEBUG.",
        )
    return None


def _run(
    subject: str,
    check: Callable[[], Check],
    found: SimpleQueue[tuple[str, Finding | None]],
    ends_at: float,
) -> None:
    with contextlib.closing(guarded(subject, check())) as findings:
        for finding in findings:
            found.put((subject, finding))
            if time.monotonic() > ends_at:
                return
    found.put((subject, None))
