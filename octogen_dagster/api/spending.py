"""Spending: request costs and the budget that limits them. No I/O."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from octogen_dagster.api.http import rate_limit
from octogen_dagster.errors import OctogenBudgetError
from octogen_dagster.printable import usd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from octogen_dagster.api.http import Response

SEARCH_PAGE_USD = 0.014
LOOKUP_USD = 0.002
"""Octogen's published prices, in US dollars."""

_SEARCH, _LOOKUP = "/products/search", "/products/lookup"
_PAGES_KEPT = (
    "Rerun with a larger budget_usd. Snapshots resume from their saved pages. Any other read "
    "starts over."
)
_LOST_RESPONSES = (
    "Octogen might charge for requests without a response. Raise the timeout or check the network."
)
_NOT_KEPT = "Rerun with a larger budget_usd. The results of earlier lookups are not saved."


@dataclass(frozen=True, slots=True)
class Prices:
    """Octogen's prices for responses with a 2xx status, in US dollars.

    A search page costs the same at any size. Other operations have no published prices and are
    counted as free.
    """

    search_page_usd: float = SEARCH_PAGE_USD
    lookup_usd: float = LOOKUP_USD

    def __post_init__(self) -> None:
        for name in ("search_page_usd", "lookup_usd"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be at least 0; got {getattr(self, name)}.")

    def of(self, path: str) -> Decimal:
        """Return the price for a request path."""
        if path == _SEARCH:
            return dollars(self.search_page_usd)
        return dollars(self.lookup_usd if path == _LOOKUP else 0)


class Spending:
    """Counts charges and rejects any request that would exceed the budget.

    All threads that use a service share one instance. An instance can have a parent, whose budget
    then applies as well. The price of a request is reserved before the request is sent, so
    concurrent requests cannot exceed the budget together. Octogen charges for responses with a 2xx
    status, even if the body is truncated. Other responses are free. A request without a response
    keeps its reservation, because the service might have charged for it.

    Attributes:
        requests: Requests sent, including retries.
        charged_requests: Searches and lookups with a 2xx response.
        spent_usd: Dollars charged so far.
        possibly_charged_usd: Additional dollars that might be charged for requests without a
            response.
    """

    def __init__(
        self,
        prices: Prices | None = None,
        budget_usd: float | None = None,
        *,
        parent: Spending | None = None,
    ) -> None:
        self.prices = prices or Prices()
        self.budget_usd = budget_usd
        if budget_usd is not None:
            if not 0 < budget_usd < float("inf"):
                raise ValueError(f"budget_usd must be greater than 0; got {budget_usd}.")
            if not (self.prices.search_page_usd or self.prices.lookup_usd):
                raise ValueError(
                    "budget_usd has no effect while search_page_usd and lookup_usd are 0. Set them "
                    "to Octogen's prices."
                )
        self._parent = parent
        self._lock = threading.Lock()
        self.requests = 0
        self.charged_requests = 0
        self.spent_usd = Decimal(0)
        self.possibly_charged_usd = Decimal(0)
        self._reserved = Decimal(0)
        self._requests_per_minute: float | None = None

    def __reduce__(self) -> tuple[Callable[..., Spending], tuple[Any, ...]]:
        if self._parent:
            return self._parent.__reduce__()
        spent = self.spent_usd, self.possibly_charged_usd
        return _restored, (self.prices, self.budget_usd, *spent)

    @property
    def left_usd(self) -> Decimal | None:
        """Dollars left in the budget. None if no budget is set."""
        if self._parent:
            return self._parent.left_usd
        if self.budget_usd is None:
            return None
        return dollars(self.budget_usd) - self.spent_usd - self.possibly_charged_usd

    @property
    def under_way_usd(self) -> Decimal:
        """Dollars that are reserved for requests in flight."""
        return self._reserved

    @property
    def requests_per_minute(self) -> float | None:
        """The latest rate limit that a response reported, or None before the first report."""
        return self._parent.requests_per_minute if self._parent else self._requests_per_minute

    def part(self) -> Spending:
        """Return a child with separate counts. Its requests are also counted in this instance."""
        return Spending(self.prices, self.budget_usd, parent=self)

    def raise_to(self, spent_usd: Decimal, possibly_charged_usd: Decimal) -> None:
        """Raise each total to the given amount, unless the total is already higher.

        The amounts can include costs from other processes.
        """
        with self._lock:
            self.spent_usd = max(self.spent_usd, spent_usd)
            self.possibly_charged_usd = max(self.possibly_charged_usd, possibly_charged_usd)

    @contextmanager
    def request(self, path: str, subject: str) -> Iterator[Charge]:
        """Reserve a request's price, and record its cost at the end of the `with` block."""
        price = self.prices.of(path)
        self._reserve(price, path, subject)
        charge = Charge()
        try:
            yield charge
        finally:
            self._settle(price, path, charge)

    def _reserve(self, price: Decimal, path: str, subject: str) -> None:
        if self._parent:
            # The parent first: if it raises, nothing stays reserved here.
            self._parent._reserve(price, path, subject)
        with self._lock:
            if price and not self._parent:
                left = self.left_usd
                if left is not None and price > left - self._reserved:
                    raise OctogenBudgetError(self._over(price, path, subject))
            self._reserved += price

    def _over(self, price: Decimal, path: str, subject: str) -> str:
        in_flight = f", {usd(self._reserved)} in flight" if self._reserved else ""
        lost, advice = "", _NOT_KEPT if path == _LOOKUP else _PAGES_KEPT
        if self.possibly_charged_usd:
            lost = f", {usd(self.possibly_charged_usd)} possibly charged for lost responses"
            advice = f"{_LOST_RESPONSES} {advice}"
        return (
            f"{subject}: the next request costs {usd(price)}, which would exceed the budget of "
            f"{usd(self.budget_usd or 0)} ({usd(self.spent_usd)} spent{lost}{in_flight}). It was "
            f"not sent. {advice}"
        )

    def _settle(self, price: Decimal, path: str, charge: Charge) -> None:
        if self._parent:
            self._parent._settle(price, path, charge)
        with self._lock:
            self._reserved -= price
            self.requests += 1
            self._requests_per_minute = charge.requests_per_minute or self._requests_per_minute
            if charge.is_charged:
                self.charged_requests += path in (_SEARCH, _LOOKUP)
                self.spent_usd += price
            elif charge.is_lost:
                self.possibly_charged_usd += price


@dataclass(slots=True)
class Charge:
    """Whether a request is charged, and the rate limit that its response reports.

    Attributes:
        is_sent: False only if the request certainly never reached the service.
        is_charged: Whether the service charges for the request. None until a response arrives.
    """

    is_sent: bool = False
    is_charged: bool | None = None
    requests_per_minute: float | None = None

    @property
    def is_lost(self) -> bool:
        """True if the request got no response, but the service might have charged for it."""
        return self.is_sent and self.is_charged is None

    def response_begun(self, response: Response) -> None:
        """Record the response's status and rate limit."""
        self.is_charged = response.is_success
        self.requests_per_minute = rate_limit(response.headers)


def dollars(amount: float) -> Decimal:
    """Convert dollars to an exact decimal. A float such as 0.014 is not exact."""
    return Decimal(str(amount))


def _restored(
    prices: Prices, budget_usd: float | None, spent_usd: Decimal, possibly_charged_usd: Decimal
) -> Spending:
    spending = Spending(prices, budget_usd)
    spending.raise_to(spent_usd, possibly_charged_usd)
    return spending
