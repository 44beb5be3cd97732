"""Question: what is asked of the service, what it may cost, and the finding that its answer is."""

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
"""Refusals that say nothing about the service: the user pays, or corrects the key."""


class Seen(NamedTuple):
    """An observation: text for anybody, and details that name catalogs and products.

    `holds` is None if the belief may be wrong, and nothing shows it for certain.
    """

    holds: bool | None
    text: str
    details: str = ""


class Charged(NamedTuple):
    """The most charged answers of a question.

    The pages of the catalog up to page `walk` are read once for all questions; `pages` are others.
    """

    walk: int = 0
    pages: int = 0
    lookups: int = 0


class Question(NamedTuple):
    """A belief about the service, and how it is asked.

    `charged` raises `NotAskedError` if the question will be left out. `concerns` says which setting
    or page of the documentation an answer that differs concerns.
    """

    subject: str
    belief: str
    concerns: str
    ask: Callable[[Service], Seen]
    charged: Callable[[Service], Charged]

    def check(self, service: Service) -> Check:
        """Ask it. What names catalogs or products is in the details of the finding alone."""
        service.mistyped.clear()
        try:
            with service.connected():
                holds, said, details = self.ask(service)
        except NotAskedError as error:
            yield Finding(self.subject, "skipped", str(error))
        except OctogenBudgetError:
            lost = service.service.spending.possibly_charged_usd
            why = f", since {usd(lost)} might be charged for lost answers" if lost else ""
            yield Finding(self.subject, "skipped", f"--max-usd does not allow it{why}: raise it.")
        except (*_BLOCKING, OctogenConnectionError) as error:
            code = getattr(error, "status_code", None)
            said = f"an answer of {code}" if code else f"no answer from {service.service.base_url}"
            advice = advice_of(code) if code else "Check the host and the network."
            yield Finding(self.subject, "blocked", f"{said}.", advice, details=str(error))
        except OctogenError as error:
            said = f"an answer of {getattr(error, 'status_code', 200)}"
            if isinstance(error, OctogenResponseError):
                said += " that the documented models refuse"
            said += ": --details says more."
            yield Finding(self.subject, "failed", said, self._advice, details=str(error))
        else:
            if service.mistyped:
                holds = False
                said = f"not as documented: {', '.join(sorted(service.mistyped))}; {said}"
            status: Status = "ok" if holds else "warning" if holds is None else "failed"
            advice = "" if holds else self._advice
            yield Finding(self.subject, status, said, advice, details=details)

    @property
    def _advice(self) -> str:
        return f"Believed: {self.belief} Concerns: {self.concerns}."


class Planned(NamedTuple):
    """A question that will be asked, and the most that it adds to the cost of those before it."""

    question: Question
    cost_usd: Decimal
    left_out: str = ""


def planned(questions: Sequence[Question], service: Service, prices: Prices) -> Iterator[Planned]:
    """Yield what each question will cost."""
    walked = 0
    for question in questions:
        try:
            walk, pages, lookups = question.charged(service)
        except Exception as error:
            is_known = isinstance(error, NotAskedError)
            reason = str(error) if is_known else "it needs an answer that did not come."
            yield Planned(question, Decimal(0), reason)
            continue
        pages += max(0, walk - walked)
        walked = max(walk, walked)
        cost = pages * dollars(prices.search_page_usd) + lookups * dollars(prices.lookup_usd)
        yield Planned(question, cost)


def ask(questions: Sequence[Question], service: Service) -> Iterator[Finding]:
    """Ask one question after the other, each for its time at most."""
    service.told.clear()  # the plan told nobody
    for question in questions:
        check = {question.subject: partial(question.check, service)}
        for _, finding in run_checks(check, QUESTION_TIMEOUT):
            yield finding
