"""Finding and Diagnosis: what is found, and the runner that yields each finding as it comes."""

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
_OF_SERVICE = ("Versions", "Octogen", "Questions")  # the checks
_LOGGER = logging.getLogger(__name__)
_Result = TypeVar("_Result")
_Resource = TypeVar("_Resource", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check about one subject.

    Attributes:
        subject: The subject, such as "Octogen key".
        status: "ok"; "warning" for what works now and may be wrong; "failed" for what does not
            work; "blocked" for what the service does not answer until its user pays, or corrects
            the API key or the host; "skipped" for what was not checked.
        message: What was found; what to do, if an error says so itself.
        advice: What to do; empty if there is nothing to do or the message says it.
        missing: The argument of `diagnose` without which the subject was not checked; empty if it
            was.
        details: Names of catalogs and products that the message leaves out; mostly empty.
        names: Names in the message that identify the user: of the organisation, shops or catalogs.
    """

    subject: str
    status: Status
    message: str
    advice: str = ""
    missing: str = ""
    details: str = ""
    names: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as values of JSON."""
        values = dataclasses.asdict(self)
        del values["names"]
        return values

    def __str__(self) -> str:
        advice = f" {self.advice}" if self.advice else ""
        details = f" Details: {self.details}" if self.details else ""
        return f"{self.status:<7}  {self.subject}: {self.message}{advice}{details}"


Check: TypeAlias = Generator[Finding, None, None]
"""A check under way, which yields what it finds."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The findings of all checks. As text it has a line for each of them.

    Attributes:
        findings: The findings, in the order of the subjects.
    """

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """True if nothing failed or is blocked; warnings are allowed."""
        return all(finding.status not in ("failed", "blocked") for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return the diagnosis as values of JSON."""
        return {"ok": self.ok, "findings": [each.as_dict() for each in self.findings]}

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))


def not_given(subject: str, resource: str) -> Finding:
    said = f"there is no resource `{resource}` to check."
    return Finding(subject, "skipped", said, missing=resource)


def anonymous(check: str, finding: Finding) -> Finding:
    """Return a finding that can be shown to strangers; `check` is the key of its check.

    What the service answers is shown without the finding's names. All other checks are about
    folders, projects, principals and tables, so that of them only the result is shown.
    """
    names, finding = finding.names, replace(finding, details="", names=())
    if not check.startswith(_OF_SERVICE) and not finding.missing:
        subject = finding.subject.partition(" (")[0]  # the name of a resource or a pool
        return replace(finding, subject=subject, message="--details says more.", advice="")
    for name in sorted(names, key=len, reverse=True):
        finding = replace(
            finding,
            message=finding.message.replace(name, "…"),
            advice=finding.advice.replace(name, "…"),
        )
    return finding


def resolved(resource: _Resource) -> _Resource:
    """Return a resource with the values of the environment variables that it names."""
    values: dict[str, str] = {}
    for field, value in resource:
        if isinstance(value, dg.EnvVar):
            variable = value.env_var_name
            if variable not in os.environ:
                raise ValueError(
                    f"{type(resource).__name__} takes {field} from the environment variable "
                    f"{variable}, which is not set: set it where the code runs."
                )
            values[field] = os.environ[variable]
    return resource.model_copy(update=values) if values else resource


def run_checks(
    checks: Mapping[str, Callable[[], Check]], timeout: float
) -> Iterator[tuple[str, Finding]]:
    """Run checks at the same time; yield each finding as it comes, with the key of its check.

    What a check has found before it fails or its time is over is kept. A check whose time is over
    ends with the step that it is at. The keys are the subjects that failures are reported for.
    """
    ends_at = time.monotonic() + timeout
    found: SimpleQueue[tuple[str, Finding | None]] = SimpleQueue()
    for subject, check in checks.items():
        submit(functools.partial(_run, subject, check, found, ends_at), "octogen-doctor")
    running = dict.fromkeys(checks)
    while running:
        left = ends_at - time.monotonic()
        try:  # in steps, since a thread that waits notices no signal
            subject, finding = found.get(timeout=max(0.0, min(left, _SIGNAL_POLL_SECONDS)))
        except Empty:
            if left <= 0:
                break
        else:
            if finding:
                yield subject, finding
            else:
                del running[subject]
    said = f"the check did not end within {timeout:g} s."
    for subject in running:
        yield subject, Finding(subject, "failed", said, "Check the network and the addresses.")


def guarded(
    subject: str, check: Generator[Finding, None, _Result]
) -> Generator[Finding, None, _Result | None]:
    """Run a check whose failure is a finding; return what it returns, and None if it fails."""
    try:
        return (yield from check)
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
