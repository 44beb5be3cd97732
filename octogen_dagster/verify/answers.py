"""Question, Answer and Report: what is asked of the service, and what it showed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Generic, Literal, NamedTuple, TypeVar

from octogen_dagster.api.spending import Prices, dollars, usd
from octogen_dagster.errors import (
    OctogenAPIError,
    OctogenAuthenticationError,
    OctogenBigQueryError,
    OctogenBudgetError,
    OctogenForbiddenError,
    OctogenInsufficientCreditError,
    OctogenRateLimitError,
    OctogenResponseError,
    OctogenServerError,
)

Verdict = Literal["holds", "differs", "not asked"]
GOOGLE_REFUSED = "Google refused it or did not answer: --details says why."
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


@dataclass(frozen=True)
class Question(Generic[_Evidence]):
    """A belief about the service, and how it is asked.

    `pages` and `lookups` are the most charged answers that it adds to those of the questions before
    it. `concerns` says which setting or page of the documentation an answer that differs concerns.
    """

    name: str
    belief: str
    concerns: str
    ask: Callable[[_Evidence], Seen]
    pages: int = 0
    lookups: int = 0

    def cost_usd(self, prices: Prices) -> Decimal:
        """The most dollars that the answers are charged."""
        page, lookup = dollars(prices.search_page_usd), dollars(prices.lookup_usd)
        return self.pages * page + self.lookups * lookup


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question. `details` may name catalogs and products; nothing else does."""

    question: str
    belief: str
    verdict: Verdict
    seen: str
    concerns: str
    details: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The answers to all questions, and what they cost."""

    answers: tuple[Answer, ...]
    spent_usd: Decimal
    max_usd: float

    @property
    def ok(self) -> bool:
        """True if nothing differs."""
        return all(answer.verdict != "differs" for answer in self.answers)

    def as_dict(self, *, details: bool = False) -> dict[str, object]:
        """Return the report as values of JSON, with `details` only if they are wanted."""
        answers = [dataclasses.asdict(answer) for answer in self.answers]
        if not details:
            for answer in answers:
                del answer["details"]
        return {"ok": self.ok, "spent_usd": float(self.spent_usd), "answers": answers}

    def as_text(self, *, details: bool = False) -> str:
        """Return the report as lines, with `details` only if they are wanted."""
        width = max(len(answer.question) for answer in self.answers)
        lines: list[str] = []
        for answer in self.answers:
            lines.append(f"{answer.verdict:<9}  {answer.question:<{width}}  {answer.seen}")
            if answer.verdict == "differs":
                lines.append(f"{'':<{width + 13}}Believed: {answer.belief}")
                lines.append(f"{'':<{width + 13}}Concerns: {answer.concerns}")
            if details and answer.details:
                lines.append(f"{'':<{width + 13}}Details: {answer.details}")
        return "\n".join([*lines, "", self._summary(details=details)])

    def _summary(self, *, details: bool) -> str:
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


def ask(questions: Sequence[Question[_Evidence]], evidence: _Evidence) -> Iterator[Answer]:
    """Ask one question after the other.

    Raises:
        OctogenAuthenticationError: The key is missing or refused, so nothing can be asked.
        OctogenConnectionError: The service does not answer.
    """
    for question in questions:
        try:
            seen = question.ask(evidence)
        except NotAskedError as error:
            yield not_asked(question, error)
        except OctogenBudgetError as error:
            yield _answer(
                question, "not asked", "--max-usd does not allow it: raise it.", str(error)
            )
        except OctogenAuthenticationError:
            raise
        except OctogenForbiddenError as error:
            reason = f"it is not granted to this key ({error.status_code})."
            yield _answer(question, "not asked", reason, str(error))
        except OctogenInsufficientCreditError as error:
            yield _answer(question, "not asked", "the prepaid credit is spent (402).", str(error))
        except (OctogenRateLimitError, OctogenServerError) as error:
            reason = f"the service answered {error.status_code}: try again later."
            yield _answer(question, "not asked", reason, str(error))
        except OctogenBigQueryError as error:
            yield not_asked(question, NotAskedError(GOOGLE_REFUSED, str(error)))
        except OctogenResponseError as error:
            reason = f"an answer of {error.status_code} that the documented models refuse."
            yield _answer(question, "differs", reason, str(error))
        except OctogenAPIError as error:
            yield _answer(question, "differs", f"an answer of {error.status_code}.", str(error))
        else:
            verdict: Verdict = "holds" if seen.holds else "differs"
            yield _answer(question, verdict, seen.text, seen.details)


def not_asked(question: Question[_Evidence], reason: NotAskedError) -> Answer:
    return _answer(question, "not asked", str(reason), reason.details)


def _answer(
    question: Question[_Evidence], verdict: Verdict, seen: str, details: str = ""
) -> Answer:
    return Answer(question.name, question.belief, verdict, seen, question.concerns, details)
