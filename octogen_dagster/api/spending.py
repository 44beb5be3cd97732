"""Spending: what the requests of a connection cost, and the budget that ends them. No I/O."""

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
"""The published prices, in dollars."""

_SEARCH, _LOOKUP = "/products/search", "/products/lookup"
_PAGES_KEPT = (
    "Run it again with a larger budget_usd: a snapshot goes on from its saved pages, any other "
    "read begins anew."
)
_ANSWERS_LOST = (
    "Octogen might charge a request whose answer came too late or not at all: raise the timeout, "
    "or check the network."
)
_NOT_KEPT = "Lookups are not kept: run it again with a larger budget_usd."


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices that Octogen charges for a response with a 2xx status.

    A page of a search costs the same whatever its size. The prices of other operations are not
    published, so they count as free.
    """

    search_page_usd: float = SEARCH_PAGE_USD
    lookup_usd: float = LOOKUP_USD

    def __post_init__(self) -> None:
        for name in ("search_page_usd", "lookup_usd"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be at least 0 dollars, not {getattr(self, name)}")

    def of(self, path: str) -> Decimal:
        """The price of a request, by its path."""
        if path == _SEARCH:
            return dollars(self.search_page_usd)
        return dollars(self.lookup_usd if path == _LOOKUP else 0)


class Spending:
    """Counts what is charged, and refuses the request that would exceed the budget.

    All threads that use a service share one; it may be a part of another one, its parent. A request
    reserves its price before it is sent, so requests that are sent at the same time cannot exceed
    the budget together. A response with a 2xx status is charged, even if its body is cut off; any
    other status is free. A request that was sent and got no response keeps its reservation, because
    the service might have charged it.

    Attributes:
        requests: The number of requests that were sent, retries included.
        charged_requests: The number of searches and lookups that were answered with a 2xx status.
        spent_usd: Dollars charged so far.
        possibly_charged_usd: Dollars that might be charged besides, for requests without a
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
                raise ValueError(f"budget_usd must be above 0 dollars, not {budget_usd}")
            if not (self.prices.search_page_usd or self.prices.lookup_usd):
                raise ValueError(
                    "budget_usd limits nothing while search_page_usd and lookup_usd are 0: set the "
                    "prices that Octogen charges."
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
        """Dollars that may still be spent; None without a budget."""
        if self._parent:
            return self._parent.left_usd
        if self.budget_usd is None:
            return None
        return dollars(self.budget_usd) - self.spent_usd - self.possibly_charged_usd

    @property
    def under_way_usd(self) -> Decimal:
        """Dollars of the requests that are sent and not answered yet."""
        return self._reserved

    @property
    def requests_per_minute(self) -> float | None:
        """The rate limit that the latest response named; None if none did."""
        return self._parent.requests_per_minute if self._parent else self._requests_per_minute

    def part(self) -> Spending:
        """Return a spending that counts a part of this one, under the same budget."""
        return Spending(self.prices, self.budget_usd, parent=self)

    def raise_to(self, spent_usd: Decimal, possibly_charged_usd: Decimal) -> None:
        """Count what other processes spent of the same budget, besides this one."""
        with self._lock:
            self.spent_usd = max(self.spent_usd, spent_usd)
            self.possibly_charged_usd = max(self.possibly_charged_usd, possibly_charged_usd)

    @contextmanager
    def request(self, path: str, subject: str) -> Iterator[Charge]:
        """Reserve the price of a request while the block sends it, and count what it costs."""
        price = self.prices.of(path)
        self._reserve(price, path, subject)
        charge = Charge()
        try:
            yield charge
        finally:
            self._settle(price, path, charge)

    def _reserve(self, price: Decimal, path: str, subject: str) -> None:
        if self._parent:
            # The parent first: if it refuses, nothing stays reserved here.
            self._parent._reserve(price, path, subject)
        with self._lock:
            if price and not self._parent:
                left = self.left_usd
                if left is not None and price > left - self._reserved:
                    raise OctogenBudgetError(self._over(price, path, subject))
            self._reserved += price

    def _over(self, price: Decimal, path: str, subject: str) -> str:
        under_way = f" and {usd(self._reserved)} are under way" if self._reserved else ""
        lost, advice = "", _NOT_KEPT if path == _LOOKUP else _PAGES_KEPT
        if self.possibly_charged_usd:
            lost = f", {usd(self.possibly_charged_usd)} might be charged for lost answers"
            advice = f"{_ANSWERS_LOST} {advice}"
        return (
            f"{subject}: the next request costs {usd(price)}, which the budget of "
            f"{usd(self.budget_usd or 0)} does not allow: {usd(self.spent_usd)} are spent{lost}"
            f"{under_way}. It was not sent. {advice}"
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
    """The charge of a request, and the rate limit that its response named.

    Attributes:
        is_sent: True unless the request certainly never reached the service.
        is_charged: True if the service charges it; None as long as there is no response.
    """

    is_sent: bool = False
    is_charged: bool | None = None
    requests_per_minute: float | None = None

    @property
    def is_lost(self) -> bool:
        """True if nobody knows whether the service charges the request."""
        return self.is_sent and self.is_charged is None

    def response_begun(self, response: Response) -> None:
        """Note the status and the headers of the response."""
        self.is_charged = response.is_success
        self.requests_per_minute = rate_limit(response.headers)


def dollars(amount: float) -> Decimal:
    """Return an exact number of dollars: 0.014 is a binary fraction as a float."""
    return Decimal(str(amount))


def _restored(
    prices: Prices, budget_usd: float | None, spent_usd: Decimal, possibly_charged_usd: Decimal
) -> Spending:
    spending = Spending(prices, budget_usd)
    spending.raise_to(spent_usd, possibly_charged_usd)
    return spending
