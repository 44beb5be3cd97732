"""Flows: what to send, when to wait, and what to make of the answers. No I/O.

A flow is a generator. It yields `Send` and gets a `Response` or a `TransportError` for it, or it
yields `Wait`; it returns a value or raises an `OctogenError`. `BlockingClient` and `OctogenClient`
drive flows. A driver must close a flow that it leaves, or what it reserved of the budget and of the
rate limit stays reserved. The answers that it gives have no API key in them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote

import msgspec

from octogen_dagster.api.estimate import FacetCounts, count_request
from octogen_dagster.api.http import (
    BodyTooLargeError,
    Request,
    Response,
    TransportError,
    TransportTimeoutError,
)
from octogen_dagster.api.models import (
    DomainCoverageResponse,
    MerchantCatalogSummary,
    MerchantProductListPage,
    MerchantProductUrlLookupResponse,
    MeResponse,
)
from octogen_dagster.api.responses import (
    error_from_response,
    invalid_body,
    is_concurrency_refusal,
    lacks_version,
    parsed,
    refused_fields,
)
from octogen_dagster.api.retry import Retries
from octogen_dagster.api.search import CURRENT_FIELDS
from octogen_dagster.errors import (
    OctogenAPIError,
    OctogenBudgetError,
    OctogenConnectionError,
    OctogenError,
    OctogenNotFoundError,
    OctogenRateLimitError,
    OctogenServerError,
    OctogenTimeoutError,
    OctogenValidationError,
)
from octogen_dagster.printable import printable

if TYPE_CHECKING:
    from octogen_dagster.api.pacing import Turn
    from octogen_dagster.api.search import SearchFilters, SearchRequest
    from octogen_dagster.api.service import Service
    from octogen_dagster.api.spending import Charge

T = TypeVar("T")


class Send(NamedTuple):
    """A request to send, and the seconds for it, to the last byte of its response.

    The driver tells the charge that the request is sent, and then that its response has begun.
    """

    request: Request
    seconds: float
    charge: Charge


class Wait(NamedTuple):
    """Seconds to wait, and why: for the `rate limit`, before a `retry`, or for a `turn`."""

    seconds: float
    why: str
    is_rate_limited: bool = False
    until: Future[Any] | None = None


@dataclass(slots=True)
class RequestStatistics:
    """The work of a driver so far: requests with retries, retries, seconds of the rate limit."""

    requests: int = 0
    retries: int = 0
    rate_limit_wait_seconds: float = 0.0

    def note(self, step: Send | Wait) -> None:
        """Count a step of a flow."""
        if isinstance(step, Send):
            self.requests += 1
            return
        self.retries += step.why == "retry"
        if step.is_rate_limited:
            self.rate_limit_wait_seconds += step.seconds


Flow: TypeAlias = Generator[Send | Wait, Response | TransportError | None, T]

LONG_WAIT = 5.0
"""Seconds that a read waits in all for the rate limit, or once after an error, without a word."""
_RETRIED = (OctogenConnectionError, OctogenRateLimitError, OctogenServerError)

CATALOGS = "The list of catalogs"
_RESPELLED = frozenset({"catalog", "understand"})
_UNKNOWN = "extra_forbidden"
"""The type of the refusal of a field that the service does not know."""
_SHOP_PATHS = ("/domains", "/stores")
_shop_path_of: dict[str, str] = {}
"""The path at which each service of this process describes a shop, by base URL."""
_LOOKUP_OPTIONS = {"resolutionMode": "index_only", "matchMode": "strict"}


def request_flow(
    service: Service,
    method: str,
    path: str,
    subject: str,
    body: Mapping[str, Any] | None = None,
    *,
    paced: bool = False,
) -> Flow[Response]:
    """Send a request, again as far as the policy allows, and return the successful response."""
    request = Request(method, f"{service.base_url}{path}", _content(body))
    if not paced:
        return (yield from _attempts(service, request, path, subject))
    headers: Mapping[str, str] | None = None
    seconds = service.limiter.take_turn(service.ends_at - service.clock())
    if seconds is None:
        raise OctogenTimeoutError(
            f"{subject}: no request can be sent in the time that is left: the "
            f"organisation's rate limit of {service.limiter.requests_per_minute:g} a minute is "
            "used up. Try again later, or ask Octogen for a higher limit."
        )
    try:
        if seconds:
            _say_pacing(service, seconds)
            yield Wait(seconds, "rate limit", is_rate_limited=True)
        response = yield from _attempts(service, request, path, subject)
        headers = response.headers
    except OctogenAPIError as error:
        headers = error.response.headers
        raise
    finally:
        service.limiter.update(headers)
    return response


def search_flow(
    service: Service, body: Mapping[str, Any], subject: str, *, paced: bool = False
) -> Flow[Response]:
    """Request one page of a search in the generation that the service speaks.

    The seed generation takes one catalog as `catalog`, the current one takes a list as `catalogs`.
    The seed generation does not know `understand` and never understands keywords; the current one
    understands them unless `understand` is false. So a search is first sent with `catalog` and
    `understand`. After a 422 that names `catalog` it is sent again with `catalogs`, and after one
    that names an `understand` of false, without it; all later ones are too. A 422 is not charged.
    """
    flow = _search(service, body, subject, paced=paced)
    return (yield from _once_learned(service, "search", flow) if paced else flow)


def _search(
    service: Service, body: Mapping[str, Any], subject: str, *, paced: bool
) -> Flow[Response]:
    refused = service.refused.get("search", frozenset())
    spelled = _spelled(body, refused)
    tried: list[dict[str, Any]] = []
    while True:
        tried.append(spelled)
        try:
            response = yield from request_flow(
                service, "POST", "/products/search", subject, spelled, paced=paced
            )
        except OctogenValidationError as error:
            named = refused_fields(error.detail)
            # A service that refuses `catalog` is of the current generation. If it was of the
            # seed's before, what that one refused counts no more.
            refused = frozenset({"catalog"}) if "catalog" in named else refused | named
            spelled = _spelled(body, refused)
            # Two refusals that undo each other would otherwise go on for ever.
            if spelled in tried:
                raise _explained(error, subject) from None
        else:
            service.refused["search"] = refused & _RESPELLED
            return response


def page_flow(service: Service, request: SearchRequest) -> Flow[MerchantProductListPage]:
    """Read one page of a search."""
    subject = search_subject(request)
    return parsed_page((yield from search_flow(service, request.body(), subject)), subject)


def search_subject(request: SearchRequest) -> str:
    """Return what begins messages about a search."""
    return f"Catalog {request.catalog!r}" if request.catalog else "The search of all catalogs"


def parsed_page(response: Response, subject: str) -> MerchantProductListPage:
    """Parse a page of a search."""
    return parsed(MerchantProductListPage, response, subject)


def parsed_lookup(response: Response, subject: str) -> MerchantProductUrlLookupResponse:
    """Parse the response to a lookup."""
    return parsed(MerchantProductUrlLookupResponse, response, subject)


def product_flow(service: Service, url: str) -> Flow[MerchantProductUrlLookupResponse]:
    """Look up the product at a merchant's URL."""
    return (yield from lookup_flow(service, url, parsed_lookup))


def lookup_flow(
    service: Service, url: str, read: Callable[[Response, str], T], *, paced: bool = False
) -> Flow[T]:
    """Look up the product at a merchant's URL in the index only, and read the response.

    By default the current generation reads a product that is not in the index from its page, and
    matches an address loosely, so that a removed variant resolves to another one. A lookup asks for
    neither. The seed generation does neither, and may refuse the two fields with a 422 that names
    them: the lookup is sent again without them, and so are all later ones. A 422 is not charged.
    """
    if not url.strip():
        raise ValueError("url must not be empty")
    subject = f"The product at {printable(url)}"
    flow = _lookup(service, url, subject, paced=paced)
    response = yield from _once_learned(service, "lookup", flow) if paced else flow
    return read(response, subject)


def _lookup(service: Service, url: str, subject: str, *, paced: bool) -> Flow[Response]:
    while True:
        refused = service.refused.get("lookup", frozenset())
        options = {name: value for name, value in _LOOKUP_OPTIONS.items() if name not in refused}
        try:
            response = yield from request_flow(
                service, "POST", "/products/lookup", subject, {"url": url, **options}, paced=paced
            )
        except OctogenValidationError as error:
            named = refused_fields(error.detail) & options.keys()
            if not named:
                raise
            service.refused["lookup"] = refused | named
        else:
            service.refused["lookup"] = refused
            return response


def _once_learned(service: Service, operation: str, flow: Flow[T]) -> Flow[T]:
    """Hold a request until the first one has learned what the service refuses.

    Otherwise requests that begin at the same time are all refused for the same field.
    """
    if operation in service.refused:
        return (yield from flow)
    own: Future[None] = Future()
    first = service.refused.learning.setdefault(operation, own)
    if first is not own:
        while not first.done():
            yield Wait(float("inf"), "turn", until=first)
        return (yield from flow)
    try:
        return (yield from flow)
    finally:
        # Whatever the first one got, the others are not to go one by one.
        service.refused.setdefault(operation, frozenset())
        own.set_result(None)


def list_catalogs_flow(service: Service) -> Flow[list[MerchantCatalogSummary]]:
    """List the catalogs that are granted to the key."""
    return parsed(list[MerchantCatalogSummary], (yield from catalogs_flow(service)), CATALOGS)


def catalogs_flow(service: Service) -> Flow[Response]:
    """Request the list of the catalogs that are granted to the key."""
    try:
        return (yield from request_flow(service, "GET", "/catalogs", CATALOGS))
    except OctogenNotFoundError as error:
        if lacks_version(service.base_url):
            raise
        raise error.with_message(
            f"{CATALOGS} does not exist at {service.base_url} (404): the service has no list any "
            "more. Say where catalogs come from, with "
            "OctogenResource(catalog_source=ShopCatalogs(hosts=[...])) or "
            "OctogenResource(catalog_source=NamedCatalogs(keys=[...])), or name those to read in "
            "ProductSearch(catalogs=[...])."
        ) from None


def me_flow(service: Service) -> Flow[MeResponse]:
    """Get the organisation of the key and its rate limit."""
    subject = "The account of the API key"
    return parsed(MeResponse, (yield from request_flow(service, "GET", "/me", subject)), subject)


def domain_flow(
    service: Service, host: str, *, paced: bool = False
) -> Flow[DomainCoverageResponse]:
    """Get the catalogs that serve a shop's host.

    The operation is `/domains/{host}`, and in newer services `/stores/{domain}`. The one that a
    service has is remembered for this process.
    """
    if not host.strip():
        raise ValueError("host must not be empty")
    subject = f"Shop {host!r}"
    known = shop_path(service.base_url)
    for path in sorted(_SHOP_PATHS, key=lambda path: path != known):
        url = f"{path}/{quote(host.strip(), safe='')}"
        try:
            response = yield from request_flow(service, "GET", url, subject, paced=paced)
        except OctogenNotFoundError as error:
            if lacks_version(service.base_url):
                raise
            if error.detail == "domain_not_covered":
                _shop_path_of[service.base_url] = path
                raise
            missing = error
        else:
            shop = parsed(DomainCoverageResponse, response, subject)
            _shop_path_of[service.base_url] = path
            return shop
    raise missing.with_message(
        f"{subject} cannot be read: {service.base_url} has no such operation (404). If the "
        "service has a list of catalogs, use GrantedCatalogs(); else "
        "NamedCatalogs(keys=[...])."
    ) from None


def shop_path(base_url: str) -> str | None:
    """Return the path of a service's operation on shops; None before it has answered."""
    return _shop_path_of.get(base_url)


def count_flow(service: Service, filters: SearchFilters, catalogs: Sequence[str] = ()) -> Flow[int]:
    """Count the products that the filters of a search leave: a lower bound, which is free."""
    subject, path = "The count of products", "/products/facet-counts"
    body = count_request(filters, catalogs)
    try:
        response = yield from request_flow(service, "POST", path, subject, body)
    except OctogenNotFoundError as error:
        if lacks_version(service.base_url):
            raise
        raise error.with_message(
            f"{subject} is not available: {service.base_url} has no such operation (404). A "
            "service of the older contract counts whole catalogs only: leave out the filters."
        ) from None
    return parsed(FacetCounts, response, subject).products(filters)


def _attempts(service: Service, request: Request, path: str, subject: str) -> Flow[Response]:
    retries, failure = Retries(service.retry), None
    deadline = service.clock() + service.retry.deadline
    while True:
        queued_at = service.clock()
        turn = yield from _turn(service, subject)
        deadline += service.clock() - queued_at  # others held it back, and not the service
        ends_at = min(deadline, service.ends_at)
        try:
            return (
                yield from _attempt(service, request, path, subject, ends_at=ends_at, turn=turn)
            )
        except OctogenBudgetError as error:
            raise error from failure  # an answer that was lost may have spent it
        except OctogenError as error:
            seconds = retries.wait_after(error)
            if seconds is None or service.clock() + seconds > ends_at:
                raise
            failure = error
            _say_retry(service, error, seconds)
            is_rate_limited = isinstance(error, OctogenRateLimitError)
        yield Wait(seconds, "retry", is_rate_limited)


def _turn(service: Service, subject: str) -> Flow[Turn]:
    """Wait until few enough requests are in flight."""
    turn = service.limiter.in_flight.enter()
    try:
        while not turn.done():
            left = service.ends_at - service.clock()
            if left <= 0:
                raise _timeout(service, subject)
            yield Wait(left, "turn", until=turn)
    except BaseException:
        service.limiter.in_flight.give_up(turn)
        raise
    return turn.result()


def _attempt(
    service: Service, request: Request, path: str, subject: str, *, ends_at: float, turn: Turn
) -> Flow[Response]:
    """Send a request once, and count what it costs."""
    in_flight = service.limiter.in_flight
    failure: OctogenError | None = None
    succeeded = False
    try:
        seconds = min(service.timeout, ends_at - service.clock())
        if seconds <= 0:
            raise _timeout(service, subject)
        with service.spending.request(path, subject) as charge:
            answer = yield Send(request, seconds, charge)
        failure = _failure(service, answer, subject)
        succeeded = failure is None
    finally:
        refused = failure is not None and is_concurrency_refusal(failure)
        in_flight.leave(turn, refused=refused, succeeded=succeeded)
    if failure is not None:
        raise failure
    assert isinstance(answer, Response)
    return answer


def _failure(
    service: Service, answer: Response | TransportError | None, subject: str
) -> OctogenError | None:
    """Return the error that an answer means; None if it is a success."""
    if isinstance(answer, Response):
        return None if answer.is_success else error_from_response(answer, subject)
    if isinstance(answer, BodyTooLargeError):
        return invalid_body(answer.response, subject, str(answer))
    if isinstance(answer, TransportTimeoutError):
        return _timeout(service, subject)
    return OctogenConnectionError(
        f"{subject}: no complete response from {service.base_url} ({answer}). Check base_url and "
        "the network, then try again."
    )


def _timeout(service: Service, subject: str) -> OctogenTimeoutError:
    seconds = min(service.timeout, service.phase_timeout)
    timeout = "none" if seconds == float("inf") else f"{seconds:g} s"
    return OctogenTimeoutError(
        f"{subject}: {service.base_url} did not answer in time (timeout {timeout}, "
        f"{service.retry.deadline:g} s with all retries). Try again, or raise the timeout."
    )


def _say_pacing(service: Service, seconds: float) -> None:
    service.log.rate_limit_wait += seconds
    if service.log.rate_limit_wait >= LONG_WAIT:
        service.log.say(
            "pacing",
            "Requests wait for the organisation's rate limit of "
            f"{service.limiter.requests_per_minute:g} a minute, of which "
            f"{service.limiter.reserved_percent:g} % are left to others: the next one is sent in "
            f"{seconds:.1f} s. Further waits are not logged. Ask Octogen for a higher limit if "
            "this takes too long.",
        )


def _say_retry(service: Service, error: OctogenError, seconds: float) -> None:
    kind = next(kind for kind in _RETRIED if isinstance(error, kind))
    # A request without a complete response is told at once: its address may be wrong.
    if kind is OctogenConnectionError or seconds >= LONG_WAIT:
        service.log.say(
            kind,
            f"{error} The request is repeated in {seconds:.1f} s, and given up after "
            f"{service.retry.deadline:g} s at the latest. Further repetitions are not logged.",
        )
    if is_concurrency_refusal(error):
        service.log.say(
            "in flight",
            "The service refuses so many requests at once (429 concurrency_limit_exceeded): at "
            f"most {service.limiter.in_flight.limit:g} are in flight from now on, and slowly more. "
            "Further refusals are not logged. Lower `concurrency`, or run fewer reads at once, to "
            "avoid them.",
        )


def _content(body: Mapping[str, Any] | None) -> bytes | None:
    try:
        return None if body is None else msgspec.json.encode(body)
    except UnicodeEncodeError:
        raise ValueError(
            "A text of the request has half of a surrogate pair, which JSON cannot say: correct it"
        ) from None


def _spelled(body: Mapping[str, Any], refused: frozenset[str]) -> dict[str, Any]:
    """Return a body without those refused fields that can be said otherwise."""
    spelled = dict(body)
    if "catalog" in refused and "catalog" in spelled:
        spelled["catalogs"] = [spelled.pop("catalog")]
    if "understand" in refused and spelled.get("understand") is False:
        del spelled["understand"]
    return spelled


def _explained(error: OctogenValidationError, subject: str) -> OctogenValidationError:
    """Say of fields that only the current generation has that the service does not know them."""
    entries = error.detail if isinstance(error.detail, list) else ()
    unknown = refused_fields(
        [each for each in entries if isinstance(each, dict) and each.get("type") == _UNKNOWN]
    )
    names = ", ".join(name for name in CURRENT_FIELDS if name in unknown)
    if not names:
        return error
    return error.with_message(
        f"{subject}: the service speaks the older contract, which has no {names} (422). Search "
        "without, or read a service of the current contract."
    )
