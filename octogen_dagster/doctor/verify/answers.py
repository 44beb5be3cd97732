"""Question, Answer and Report: what is asked of the service, and what it showed."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from octogen_dagster.api.spending import Prices, dollars
from octogen_dagster.errors import (
    OctogenAPIError,
    OctogenAuthenticationError,
    OctogenBigQueryError,
    OctogenBudgetError,
    OctogenConnectionError,
    OctogenForbiddenError,
    OctogenInsufficientCreditError,
    OctogenRateLimitError,
    OctogenResponseError,
    OctogenServerError,
)
from octogen_dagster.printable import usd

Verdict = Literal["holds", "differs", "not asked"]
GOOGLE_REFUSED = "Google refused it or did not answer: --details says why."
QUESTION_TIMEOUT = 30.0
"""Seconds for all requests of a question."""
_LOGGER = logging.getLogger(__name__)
_Evidence = TypeVar("_Evidence")


class Seen(NamedTuple):
    """An observation: text for anybody, and details that name catalogs and products."""

    holds: bool
    text: str
    details: str = ""


class NotAskedError(Exception):
    """The question cannot be asked; the message says why, and what would let it be asked."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class Charged(NamedTuple):
    """The most charged answers of a question.

    The pages of the catalog up to page `walk` are read once for all questions; `pages` are others.
    """

    walk: int = 0
    pages: int = 0
    lookups: int = 0


@dataclass(frozen=True)
class Question(Generic[_Evidence]):
    """A belief about the service, and how it is asked.

    `charged` raises `NotAskedError` if the question will be left out. `concerns` says which setting
    or page of the documentation an answer that differs concerns.
    """

    name: str
    belief: str
    concerns: str
    ask: Callable[[_Evidence], Seen]
    charged: Callable[[_Evidence], Charged] = lambda _: Charged()


class Planned(NamedTuple):
    """A question that will be asked, and the most that it adds to the cost of those before it.

    `left_out` says why it will not be asked; empty if it will.
    """

    question: Question[Any]
    cost_usd: Decimal
    left_out: str = ""


def planned(
    questions: Sequence[Question[_Evidence]], evidence: _Evidence, prices: Prices
) -> Iterator[Planned]:
    """Yield what each question will cost."""
    walked = 0
    for question in questions:
        try:
            walk, pages, lookups = question.charged(evidence)
        except Exception as error:
            is_known = isinstance(error, NotAskedError)
            reason = str(error) if is_known else "it needs an answer that did not come."
            yield Planned(question, Decimal(0), reason)
            continue
        pages += max(0, walk - walked)
        walked = max(walk, walked)
        cost = pages * dollars(prices.search_page_usd) + lookups * dollars(prices.lookup_usd)
        yield Planned(question, cost)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question. `details` may name catalogs and products; nothing else does."""

    question: str
    belief: str
    verdict: Verdict
    seen: str
    concerns: str
    details: str = ""

    def as_text(self, width: int, *, details: bool = False) -> str:
        """Return the answer as lines, with `details` only if they are wanted.

        `width` is that of the names of all questions.
        """
        lines = [f"{self.verdict:<9}  {self.question:<{width}}  {self.seen}"]
        if self.verdict == "differs":
            lines += [f"Believed: {self.belief}", f"Concerns: {self.concerns}"]
        if details and self.details:
            lines.append(f"Details: {self.details}")
        return f"\n{'':<{width + 13}}".join(lines)


@dataclass(frozen=True, slots=True)
class Report:
    """The answers to the questions that were asked, and what they cost."""

    answers: tuple[Answer, ...]
    spent_usd: Decimal
    max_usd: float

    @property
    def ok(self) -> bool:
        """True if nothing differs and the first question, which all others need, was answered."""
        verdicts = [answer.verdict for answer in self.answers]
        return verdicts[:1] == ["holds"] and "differs" not in verdicts

    def as_dict(self, *, details: bool = False) -> dict[str, object]:
        """Return the report as values of JSON, with `details` only if they are wanted."""
        answers = [dataclasses.asdict(answer) for answer in self.answers]
        if not details:
            for answer in answers:
                del answer["details"]
        return {"ok": self.ok, "spent_usd": float(self.spent_usd), "answers": answers}

    def summary(self, *, details: bool) -> str:
        """Return how many answers there are of each kind, and what they cost."""
        count = [answer.verdict for answer in self.answers].count
        summary = (
            f"{count('holds')} hold, {count('differs')} differ, {count('not asked')} were not "
            f"asked. {usd(self.spent_usd)} of {usd(self.max_usd)} were spent."
        )
        if details:
            return (
                f"{summary} The details may name your catalogs and products: mind who reads them."
            )
        return (
            f"{summary} This report names no key, organisation, catalog or product, so it can be "
            "pasted into an issue."
        )


def ask(question: Question[_Evidence], evidence: _Evidence) -> Answer:
    """Ask a question. Any error becomes its answer; only an interrupt is raised."""
    verdict: Verdict
    try:
        seen = question.ask(evidence)
    except Exception as error:
        verdict, said, details = _read_failure(question, error)
    else:
        verdict, said, details = "holds" if seen.holds else "differs", seen.text, seen.details
    return Answer(question.name, question.belief, verdict, said, question.concerns, details)


def _read_failure(question: Question[Any], error: Exception) -> tuple[Verdict, str, str]:
    """Return the verdict, what it says and details."""
    if isinstance(error, NotAskedError):
        return "not asked", str(error), error.details
    for kinds, verdict, said in _FAILURES:
        if isinstance(error, kinds):
            return verdict, said.format(status=getattr(error, "status_code", "")), str(error)
    # The text of an unexpected error may quote a secret.
    _LOGGER.debug("The question %r failed.", question.name, exc_info=error)
    said = f"an answer that this package fails to read ({type(error).__name__})."
    return "differs", said, ""


_FAILURES: Sequence[tuple[Any, Verdict, str]] = (
    (OctogenBudgetError, "not asked", "--max-usd does not allow it: raise it."),
    (OctogenConnectionError, "not asked", "no answer: --details says why."),
    (OctogenAuthenticationError, "not asked", "the key is refused ({status})."),
    (OctogenForbiddenError, "not asked", "it is not granted to this key ({status})."),
    (OctogenInsufficientCreditError, "not asked", "the prepaid credit is spent ({status})."),
    (
        (OctogenRateLimitError, OctogenServerError),
        "not asked",
        "the service answered {status}: try again later.",
    ),
    (OctogenBigQueryError, "not asked", GOOGLE_REFUSED),
    (
        OctogenResponseError,
        "differs",
        "an answer of {status} that the documented models refuse.",
    ),
    (OctogenAPIError, "differs", "an answer of {status}."),
)
"""The verdict on a question by the kind of its error; the first that fits counts."""
