"""A flow from a table of scripted answers: with no client at all, and with both clients."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from octogen_dagster import errors
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.flow import (
    Flow,
    Send,
    Wait,
    request_flow,
)
from octogen_dagster.api.http import (
    BodyTooLargeError,
    Response,
    TransportError,
    TransportTimeoutError,
)
from octogen_dagster.api.operations import search_flow
from octogen_dagster.api.pacing import RateLimiter
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.service import Service, ServiceLog
from octogen_dagster.api.spending import Spending
from tests.api.servers import KEY, page

BODY = {"q": "dress"}
CURRENT_LIMIT = {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "12"}


def answer(status: int = 200, body: Any = None, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = json.dumps(page(["a"]) if body is None else body).encode()
    return Response(status, named, content)


@dataclass
class Script:
    """Answers in turn, the last one for ever, and time that passes as the flow says."""

    answers: list[Response | TransportError]
    seconds: float = 0.0
    now: float = 1000.0
    sent: list[Send] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def service(self, base_url: str = "https://octogen.example/v1", **settings: Any) -> Service:
        clock = lambda: self.now  # noqa: E731
        return Service(
            api_key=ApiKey(KEY),
            base_url=base_url,
            limiter=settings.pop("limiter", None) or RateLimiter(clock=clock),
            log=ServiceLog(self.lines.append),
            clock=clock,
            **settings,
        )

    def drive(self, flow: Flow[Any]) -> Any:
        received: Response | TransportError | None = None
        while True:
            try:
                step = flow.send(received)
            except StopIteration as end:
                return end.value
            received = None
            if isinstance(step, Wait):
                self.waits.append(step)
                self.now += step.seconds
            else:
                self.sent.append(step)
                self.now += self.seconds
                received = self.answers[min(len(self.sent), len(self.answers)) - 1]
                step.charge.is_sent = received is not NO_CONNECTION
                if received is not NO_CONNECTION and received is not HUNG:
                    step.charge.response_begun(
                        received if isinstance(received, Response) else answer()
                    )


LIMITED = answer(429, {"detail": "rate_limit_exceeded"}, retry_after="7")
BUSY = answer(503, {"detail": "busy"})
CUT = TransportError("cut off")
HUNG = TransportTimeoutError("hung")
NO_CONNECTION = TransportError("refused")
SHOP = answer(502, {"detail": "product_lookup_failed"})
CASES: dict[str, tuple[list[Any], dict[str, Any], type[errors.OctogenError] | None, int, int]] = {
    # the answers, the settings, the error, the requests sent, those charged
    "a page": ([answer()], {}, None, 1, 1),
    "503 twice": ([BUSY, BUSY, answer()], {}, None, 3, 1),
    "503 for ever": ([BUSY], {}, errors.OctogenServerError, 3, 0),
    "429 costs no attempt": ([LIMITED] * 5 + [answer()], {}, None, 6, 1),
    "429 until the deadline": ([LIMITED], {"deadline": 30}, errors.OctogenRateLimitError, 4, 0),
    "retry-after too long": (
        [answer(503, {}, retry_after="121")],
        {},
        errors.OctogenServerError,
        1,
        0,
    ),
    "401": ([answer(401, {"detail": "x"})], {}, errors.OctogenAuthenticationError, 1, 0),
    "a shop fails": ([SHOP], {}, errors.OctogenShopError, 2, 0),
    "a cut body is charged": ([CUT, answer()], {}, None, 2, 2),
    "no connection": ([NO_CONNECTION], {}, errors.OctogenConnectionError, 3, 0),
    "hung": ([HUNG, answer()], {}, None, 2, 1),
    "hung until the budget": ([HUNG], {"budget_usd": 0.03}, errors.OctogenBudgetError, 2, 0),
    "too large": ([BodyTooLargeError(answer())], {}, errors.OctogenResponseError, 1, 1),
    "no budget": ([CUT], {"budget_usd": 0.03}, errors.OctogenBudgetError, 2, 2),
    "no retries": ([BUSY], {"attempts": 1}, errors.OctogenServerError, 1, 0),
}


@pytest.mark.parametrize("case", CASES)
def test_a_search_from_a_table(case: str) -> None:
    answers, settings, error, sent, charged = CASES[case]
    script = Script(answers)
    policy = RetryPolicy(
        attempts=settings.get("attempts", 3), deadline=settings.get("deadline", 300)
    )
    spending = Spending(budget_usd=settings.get("budget_usd"))
    service = script.service(retry=policy, spending=spending)
    flow = search_flow(service, BODY, "It", paced=True)
    if error is None:
        assert script.drive(flow).content == answer().content
    else:
        with pytest.raises(error, match=r"^It"):
            script.drive(flow)
    assert (len(script.sent), spending.charged_requests) == (sent, charged)
    assert spending.requests == sent
    lost = sum(answers[min(number, len(answers) - 1)] is HUNG for number in range(sent))
    assert spending.possibly_charged_usd == lost * Decimal("0.014")
    assert_nothing_reserved(service)


def assert_nothing_reserved(service: Service) -> None:
    assert service.spending._reserved == 0
    assert service.limiter._pending == 0
    assert service.limiter.in_flight._in_flight == 0


def test_each_attempt_has_what_is_left_of_the_deadline() -> None:
    script = Script([BUSY, answer()], seconds=20)
    retry = RetryPolicy(deadline=25, first_delay=0.001)
    script.drive(search_flow(script.service(retry=retry), BODY, "It"))
    assert [round(sent.seconds) for sent in script.sent] == [25, 5]


def test_a_paced_request_waits_for_the_bucket_and_learns_from_every_answer() -> None:
    script = Script([Response(404, CURRENT_LIMIT, b"{}")])
    service = script.service()
    for _ in range(2):
        with pytest.raises(errors.OctogenError):
            script.drive(request_flow(service, "GET", "/x", "It", paced=True))
    assert [(wait.why, wait.seconds) for wait in script.waits] == [("rate limit", 1.0)]
    with pytest.raises(errors.OctogenError):
        script.drive(request_flow(service, "GET", "/x", "It"))
    assert len(script.waits) == 1, "a single request does not wait"


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_flow_that_is_closed_gives_everything_back(steps: int) -> None:
    script = Script([])
    service = script.service(spending=Spending(budget_usd=0.02))
    service.limiter.reserve()
    service.limiter.update(CURRENT_LIMIT)
    flow = search_flow(service, BODY, "It", paced=True)
    step: Send | Wait = next(flow)
    for _ in range(steps - 1):
        step = flow.send(BUSY if isinstance(step, Send) else None)
    flow.close()
    assert_nothing_reserved(service)
    assert service.spending.spent_usd == 0
