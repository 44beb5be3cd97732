"""Finding and Diagnosis: what the checks found. No I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Status = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found about one subject.

    Attributes:
        subject: The subject, such as "Octogen key".
        status: "ok"; "warning" for what works now and may be wrong; "failed" for what does not
            work; "skipped" for what was not checked.
        message: What was found; what to do, if an error says so itself.
        advice: What to do; empty if there is nothing to do or the message says it.
    """

    subject: str
    status: Status
    message: str
    advice: str = ""

    def __str__(self) -> str:
        advice = f" {self.advice}" if self.advice else ""
        return f"{self.status:<7}  {self.subject}: {self.message}{advice}"


Check: TypeAlias = Generator[Finding, None, None]
"""A check under way, which yields what it finds."""


def not_given(subject: str, resource: str) -> Finding:
    """A finding about a resource that there is not.

    Args:
        subject: The subject that is not checked.
        resource: The name of the resource as an argument of `diagnose`.
    """
    return Finding(subject, "skipped", f"there is no resource `{resource}` to check.")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What all checks found. As text it has a line for each finding.

    Attributes:
        findings: The findings, in the order of the subjects.
    """

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """True if nothing failed; warnings are allowed."""
        return all(finding.status != "failed" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return the diagnosis as values of JSON."""
        return {"ok": self.ok, "findings": [dataclasses.asdict(each) for each in self.findings]}

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))
