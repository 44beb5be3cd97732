"""ReadStatistics: the statistics that reads of products and of details have in common."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from octogen_dagster.api.spending import Prices, dollars, usd

if TYPE_CHECKING:
    from octogen_dagster.api.requester import RequestStatistics
    from octogen_dagster.api.spending import Spending

Figure = str | int | float | bool | datetime | dict[str, object]
Figures = dict[str, Figure]
"""Figures of a read by name, as plain values."""

_SPEED_SECONDS = 60.0
"""The time that the speed of a read under way is of: the first pages may come at once."""


@dataclass
class ReadStatistics:
    """The statistics of an execution of a frame.

    Attributes:
        started_at: When the execution began.
        complete: True if the execution came to its end.
        rows: Rows read, before any filter of the query.
        received_rows: Rows received, of which the query may not have taken all.
        requests_left: Charged requests that are still to come, as far as is known; None if nothing
            is known.
        requests: Requests sent, retries and those of planning and checking included.
        retries: Requests for rows that were sent again after a failure.
        rate_limit_wait_seconds: Seconds waited for the organisation's rate limit, over all
            threads.
        unknown_fields: How often each field occurred that the schema does not know, by path.
        charged_requests: Searches and lookups that the service charged, also those of planning
            and checking.
        cost_usd: What they cost, in dollars.
        prices: The prices.
        seconds: Wall time, in seconds.
    """

    started_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    complete: bool = False
    rows: int = 0
    received_rows: int = 0
    requests_left: int | None = None
    requests: int = 0
    retries: int = 0
    rate_limit_wait_seconds: float = 0.0
    unknown_fields: Counter[str] = field(default_factory=Counter)
    charged_requests: int = 0
    cost_usd: float = 0.0
    prices: Prices = field(default_factory=Prices)
    seconds: float = 0.0
    _began: float = field(default_factory=time.monotonic, repr=False, compare=False)
    _recent: deque[tuple[float, int]] = field(
        default_factory=lambda: deque([(0.0, 0)]), repr=False, compare=False
    )

    @property
    def rows_per_second(self) -> float:
        """Rows divided by wall time."""
        return self.rows / self.seconds if self.seconds else 0.0

    def update(self, sent: RequestStatistics, spending: Spending) -> None:
        """Update the wall time, the numbers of requests and what they cost."""
        self.seconds = time.monotonic() - self._began
        self._recent.append((self.seconds, self.received_rows))
        while self._recent[1][0] < self.seconds - _SPEED_SECONDS:
            self._recent.popleft()
        self.requests, self.retries = spending.requests, sent.retries
        self.rate_limit_wait_seconds = sent.rate_limit_wait_seconds
        self.charged_requests = spending.charged_requests
        self.cost_usd, self.prices = float(spending.spent_usd), spending.prices

    def figures(self) -> Figures:
        """Return the figures by name."""
        figures: Figures = {
            "requests": self.requests,
            "retries": self.retries,
            "charged_requests": self.charged_requests,
            "rate_limit_wait_seconds": round(self.rate_limit_wait_seconds, 3),
            "seconds": round(self.seconds, 3),
            "rows_per_second": round(self.rows_per_second, 1),
            "unknown_fields": sum(self.unknown_fields.values()),
            "fetched_at": self.started_at,
        }
        if self.unknown_fields:
            figures["unknown_field_names"] = dict(self.unknown_fields.most_common())
        return figures

    def cost_figures(self, price_usd: float, saved_requests: int) -> Figures:
        """Return the costs by name; none if the price is 0.

        Args:
            price_usd: Dollars for each request of the kind that reads the rows.
            saved_requests: The number of such requests that this run was spared, since earlier
                ones have paid for them.
        """
        if not price_usd:
            return {}
        figures: Figures = {
            "cost_usd": self.cost_usd,
            "cost_saved_usd": float(dollars(price_usd) * saved_requests),
        }
        if self.rows:
            figures["cost_usd_per_1000_products"] = round(self.cost_usd / self.rows * 1000, 6)
        return figures

    def cost(self, price_usd: float) -> str:
        """Return the cost so far and what it will likely be, such as "$0.28 of about $0.42".

        Args:
            price_usd: Dollars for each request that is left; nothing is said if it is 0.
        """
        if not price_usd:
            return ""
        text = usd(self.cost_usd)
        if self.requests_left and not self.complete:
            total = dollars(self.cost_usd) + dollars(price_usd) * self.requests_left
            text += f" of about {usd(total)}"
        return f"{text}, "

    def speed(self, expected: int | None) -> str:
        """Return the speed and the time left, such as "950 a second, about 3 s left".

        Args:
            expected: The number of rows there will be; None if it is not known.
        """
        if self.complete:
            return f"{self.rows_per_second:,.0f} a second"
        began, rows = self._recent[0]
        seconds = self.seconds - began
        speed = (self.received_rows - rows) / seconds if seconds > 0 else 0.0
        text = f"{speed:,.0f} a second"
        left = (expected or 0) - self.received_rows
        if left > 0 and speed:
            text += f", about {left / speed:,.0f} s left"
        return text
