"""Questions to the service.

Each question tests an assumption, has a maximum cost and results in a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from typing import NamedTuple

from octogen_dagster.api.responses import advice_of
from octogen_dagster.api.spending import Prices, dollars
from octogen_dagster.doctor.findings import Check, Finding, Status, run_checks
from octogen_dagster.doctor.service import QUESTION_TIMEOUT, NotAskedError, Service
from octogen_dagster.errors import (
    OctogenAuthenticationError,
    OctogenBudgetError,
    OctogenConnectionError,
    OctogenError,
    OctogenForbiddenError,
    OctogenInsufficientCreditError,
    OctogenResponseError,
)
from octogen_dagster.printable import usd

_BLOCKING = (OctogenAuthenticationError, OctogenInsufficientCreditError, OctogenForbiddenError)
"""Errors caused by the account: no credit, a rejected API key or a missing permission."""


class Seen(NamedTuple):
    """The answer to a question. Names of catalogs and products appear only in `details`."""

    holds: bool | None
    """True if the assumption holds, False if it does not, and None if the result is uncertain."""
    text: str
    details: str = ""


class Charged(NamedTuple):
    """The maximum number of charged requests for a `Question`."""

    walk: int = 0
    """Pages from the start of the catalog. The questions share these pages, so each page is read
    only once."""
    pages: int = 0
    """Additional pages."""
    lookups: int = 0


class Question(NamedTuple):
    """An assumption about the service, and the requests that test this assumption."""

    subject: str
    belief: str
    concerns: str
    """The setting or documentation page that is affected if the assumption is wrong."""
    ask: Callable[[Service], Seen]
    charged: Callable[[Service], Charged]
    """Returns the maximum charges, or raises `NotAskedError` if the question must be skipped."""

    def check(self, service: Service) -> Check:
        """Test the assumption and yield a finding.

        Only the finding's `details` contain the names of catalogs and products.
        """
        service.mistyped.clear()
        try:
            with service.connected():
                holds, seen, details = self.ask(service)
        except NotAskedError as error:
            yield Finding(self.subject, "skipped", str(error))
        except OctogenBudgetError:
            lost = service.service.spending.possibly_charged_usd
            why = f" Octogen might charge {usd(lost)} for lost responses." if lost else ""
            text = f"the cost would exceed the --max-usd limit.{why} Raise the limit."
            yield Finding(self.subject, "skipped", text)
        except (*_BLOCKING, OctogenConnectionError) as error:
            code = getattr(error, "status_code", None)
            said = f"status {code}" if code else f"no response from {service.service.base_url}"
            advice = advice_of(code) if code else "Check the host and the network."
            yield Finding(self.subject, "blocked", f"{said}.", advice, details=str(error))
        except OctogenError as error:
            said = f"status {getattr(error, 'status_code', 200)}"
            if isinstance(error, OctogenResponseError):
                said += " with a response that does not match the documented models"
            said += ". For more information, add --details."
            yield Finding(self.subject, "failed", said, self._advice, details=str(error))
        else:
            if service.mistyped:
                holds = False
                fields = ", ".join(sorted(service.mistyped))
                seen = f"differs from the documentation: {fields}; {seen}"
            status: Status = "ok" if holds else "warning" if holds is None else "failed"
            advice = "" if holds else self._advice
            yield Finding(self.subject, status, seen, advice, details=details)

    @property
    def _advice(self) -> str:
        return f"Expected: {self.belief} Affects: {self.concerns}."


class Planned(NamedTuple):
    """A planned `Question`, with the maximum cost that it adds."""

    question: Question
    cost_usd: Decimal
    left_out: str = ""


def planned(questions: Sequence[Question], service: Service, prices: Prices) -> Iterator[Planned]:
    """Yield each `Question` with its maximum additional cost.

    Pages that earlier questions read are not charged again.
    """
    walked = 0
    for question in questions:
        try:
            walk, pages, lookups = question.charged(service)
        except Exception as error:
            is_known = isinstance(error, NotAskedError)
            reason = str(error) if is_known else "a required response did not arrive."
            yield Planned(question, Decimal(0), reason)
            continue
        pages += max(0, walk - walked)
        walked = max(walk, walked)
        cost = pages * dollars(prices.search_page_usd) + lookups * dollars(prices.lookup_usd)
        yield Planned(question, cost)


def ask(questions: Sequence[Question], service: Service) -> Iterator[Finding]:
    """Test one assumption after another. Each test has a time limit."""
    service.reported.clear()  # the plan reported no failures
    for question in questions:
        check = {question.subject: partial(question.check, service)}
        for _, finding in run_checks(check, QUESTION_TIMEOUT):
            yield finding
