"""Statistics about reads, and metrics for the products they return."""

from __future__ import annotations

import math
import re
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl

from octogen_dagster.api.search import ProductSearch
from octogen_dagster.api.spending import Prices, dollars
from octogen_dagster.frames.cells import MAX_CURRENCIES, NO_CURRENCY
from octogen_dagster.frames.effective_query import EffectiveQuery, combine
from octogen_dagster.frames.source import Metrics
from octogen_dagster.printable import count, sparkline, spent_text, usd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from octogen_dagster.api.flow import RequestStatistics
    from octogen_dagster.api.spending import Spending
    from octogen_dagster.reading.decode import ProductPage

_SPEED_SECONDS = 60.0
"""The time window for measuring the speed.

Saved pages load much faster than new pages, so a longer window would overestimate the speed.
"""
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_MIN_PLOTTED_FRACTION = 0.05
"""The minimum share of products that must have a price in a currency to plot its median price."""
_BARS = 8
_CODE = re.compile("[a-z]{3}")


@dataclass
class ReadStatistics:
    """Statistics for one execution of a frame, including requests for planning and for checks."""

    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    complete: bool = False  # True if the execution finished
    rows: int = 0  # before the query's filters
    received_rows: int = 0  # the query might not have consumed all of them
    requests_left: int | None = None  # expected charged requests; None if unknown
    requests: int = 0  # including retries
    requests_before: int = 0  # sent for this read before the execution began
    retries: int = 0
    rate_limit_wait_seconds: float = 0.0  # over all threads
    unknown_fields: Counter[str] = field(default_factory=Counter)  # not in the schema, by path
    charged_requests: int = 0
    cost_usd: float = 0.0
    possibly_charged_usd: float = 0.0  # additional, for requests without a response
    prices: Prices = field(default_factory=Prices)
    seconds: float = 0.0  # wall time
    _began: float = field(default_factory=time.monotonic, repr=False, compare=False)
    _recent: deque[tuple[float, int]] = field(
        default_factory=lambda: deque([(0.0, 0)]), repr=False, compare=False
    )

    @property
    def rows_per_second(self) -> float:
        """Rows divided by wall time."""
        return self.rows / self.seconds if self.seconds else 0.0

    def update(self, sent: RequestStatistics, spending: Spending) -> None:
        """Update the wall time, the number of requests and the cost."""
        self.seconds = time.monotonic() - self._began
        self._recent.append((self.seconds, self.received_rows))
        while self._recent[1][0] < self.seconds - _SPEED_SECONDS:
            self._recent.popleft()
        self.requests = self.requests_before + spending.requests
        self.retries = sent.retries
        self.rate_limit_wait_seconds = sent.rate_limit_wait_seconds
        self.charged_requests = spending.charged_requests
        self.cost_usd, self.prices = float(spending.spent_usd), spending.prices
        self.possibly_charged_usd = float(spending.possibly_charged_usd)

    def metrics(self) -> Metrics:
        metrics: Metrics = {
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
            metrics["unknown_field_names"] = dict(self.unknown_fields.most_common())
        return metrics

    def cost_metrics(self, price_usd: float, saved_requests: int) -> Metrics:
        """Return the cost metrics by name; empty if requests are free.

        `price_usd` is the price of a request, and `saved_requests` is the number of requests that
        earlier runs paid for.
        """
        if not price_usd:
            return {}
        metrics: Metrics = {
            "cost_usd": self.cost_usd,
            "possibly_charged_usd": self.possibly_charged_usd,
            "cost_saved_usd": float(dollars(price_usd) * saved_requests),
        }
        if self.rows:
            metrics["cost_usd_per_1000_products"] = round(self.cost_usd / self.rows * 1000, 6)
        return metrics

    def cost(self, price_usd: float) -> str:
        """Return the cost so far and its likely total, such as "$0.28 of about $0.42"."""
        if not price_usd:
            return ""
        text = spent_text(self.cost_usd, self.possibly_charged_usd)
        if self.requests_left and not self.complete:
            total = dollars(self.cost_usd) + dollars(price_usd) * self.requests_left
            text += f" of about {usd(total)}"
        return f"{text}, "

    def speed(self, expected: int | None) -> str:
        """Return the speed and the remaining time, such as "950 a second, about 3 s left"."""
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


@dataclass
class ScanStatistics(ReadStatistics):
    """Statistics for one execution of a `ProductScan`.

    `started_at` is also the value of `fetched_at` in the rows. `rows_per_product` is the ratio of
    `expected_rows` to the source's product counts. It is None unless the latest snapshot contains
    the ratio for every catalog. `likely_rows` is the number of rows in finished catalogs plus the
    expected number of rows in the remaining catalogs.
    """

    search: ProductSearch = field(default_factory=ProductSearch)
    expected_rows: int | None = None  # None if unknown
    rows_per_product: float | None = None
    product_counts: dict[str, int] = field(default_factory=dict)  # from the source, by catalog
    rows_by_catalog: Counter[str | None] = field(default_factory=Counter)
    truncated: bool = False  # True if the cap left products unread
    catalogs: list[str] = field(default_factory=list)  # the catalogs read, if known
    walks: int = 0  # passes over pages; several for each catalog that is read in parts
    likely_rows: int | None = None
    pages: int = 0  # decoded, including saved pages
    received_pages: int = 0  # the query might not have consumed all of them
    first_pages: int = 0  # first pages that were requested again at the end for comparison
    repeats: int = 0  # duplicate products that were removed
    resumed_pages: int = 0  # saved pages that were not requested again
    first_request_id: str | None = None
    last_request_id: str | None = None
    effective_queries: dict[str, EffectiveQuery] = field(default_factory=dict)  # by catalog

    @property
    def effective_query(self) -> EffectiveQuery | None:
        """The effective query, or the queries by catalog if they differ; None if unknown."""
        return combine(self.effective_queries)

    def add(self, frame: pl.DataFrame, pages: Sequence[ProductPage]) -> None:
        """Add a frame's rows and pages to the totals."""
        self.rows += len(frame)
        self.pages += len(pages)
        for page in pages:
            self.unknown_fields.update(page.unknown)
        self.first_request_id = self.first_request_id or pages[0].request_id
        self.last_request_id = pages[-1].request_id

    def metrics(self) -> Metrics:
        price = self.prices.search_page_usd
        paid = round(self.cost_usd / price) if price else 0
        # Requests that only compared saved pages reduce the savings.
        spared = max(0, min(self.resumed_pages, self.pages - paid))
        metrics: Metrics = {
            "search": self.search.as_json(),
            "truncated": self.truncated,
            "empty": not self.rows,
            "walks": self.walks,
            "pages": self.pages,
            "resumed_pages": self.resumed_pages,
            "repeats_removed": self.repeats,
            **super().metrics(),
            **self.cost_metrics(price, spared),
        }
        if self.first_request_id and self.last_request_id:
            ids = (self.first_request_id, self.last_request_id)
            metrics["request_ids"] = [*dict.fromkeys(ids)]
        if query := self.effective_query:
            metrics["effective_query"] = query
        if self.expected_rows is not None:
            metrics["expected_rows"] = self.expected_rows
        if self.rows_per_product is not None:
            metrics["rows_per_product"] = round(self.rows_per_product, 4)
        return metrics

    def progress(self) -> str:
        catalogs = self.search.catalogs
        subject = f"Catalog {catalogs[0]!r}" if len(catalogs) == 1 else "The search"
        of = f" of {self.likely_rows:,}" if self.likely_rows else ""
        pages = count(self.received_pages, "page")
        if self.first_pages:
            times = f" {self.first_pages} times" if self.first_pages > 1 else ""
            pages += f", and page 1 again{times}"
        return (
            f"{subject}: {self.received_rows:,}{of} products in {pages}, "
            f"{self.cost(self.prices.search_page_usd)}{self.speed(self.likely_rows)}"
        )


class ProductMetrics:
    """Computes null fractions and price quantiles for the products in a read.

    `null_fractions` contains every column that has nulls. `price_quantiles` contains the five
    currencies with the most products, because prices in different currencies cannot be compared. A
    currency with at least 5 % of the products also has a sparkline in `price_lines` and a separate
    metric for its median. The sparkline shows the distribution between the first and the last
    quantile. The metric's name is `price_p50_eur`, for example, or `price_p50_no_currency` for
    products without a currency. The most frequent currency comes first, and Dagster plots it.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._nulls = Counter[str]()
        self._prices: dict[str | None, list[pl.Series]] = {}

    def add(self, products: pl.DataFrame) -> None:
        """Add a frame with the columns in `PRODUCT_SCHEMA`."""
        self._rows += len(products)
        self._nulls.update(products.null_count().row(0, named=True))
        nameless = products["brand"].struct.field("name").null_count()
        self._nulls["brand"] += nameless - products["brand"].null_count()
        currency, prices = products["currency"].str.to_lowercase(), products["current_price"]
        codes = currency.unique().to_list()
        for code in codes:
            selected = prices.filter(currency.eq_missing(code)) if len(codes) > 1 else prices
            self._prices.setdefault(code, []).append(selected)

    def metrics(self) -> Metrics:
        """Return the metrics by name; empty if there are no rows."""
        if not self._rows:
            return {}
        shares = {name: round(nulls / self._rows, 4) for name, nulls in self._nulls.items()}
        metrics: Metrics = {
            "null_share_current_price": shares["current_price"],
            "null_share_brand": shares["brand"],
            "null_fractions": {name: share for name, share in shares.items() if share},
        }
        quantiles, lines = dict[str, object](), dict[str, object]()
        sizes = {code: sum(map(len, some)) for code, some in self._prices.items()}
        known = [code for code in sizes if code is None or _CODE.fullmatch(code)]
        largest = sorted(known, key=lambda code: (-sizes[code], code or ""))
        for code in largest[:MAX_CURRENCIES]:
            prices = pl.concat(self._prices[code])
            of_currency = {
                f"p{round(share * 100):02}": round(value, 4)
                for share in _QUANTILES
                if (value := prices.quantile(share)) is not None and math.isfinite(value)
            }
            if not of_currency:
                continue
            name = code or NO_CURRENCY
            quantiles[name] = of_currency
            is_plotted = len(prices) >= _MIN_PLOTTED_FRACTION * self._rows
            if is_plotted and {"p05", "p50", "p95"} <= of_currency.keys():
                metrics[f"price_p50_{name}"] = of_currency["p50"]
                lines[name] = _line(prices, of_currency["p05"], of_currency["p95"])
        if quantiles:
            metrics |= {"price_quantiles": quantiles, "price_lines": lines}
        return metrics


def _line(prices: pl.Series, low: float, high: float) -> str:
    """Return a sparkline of the prices between `low` and `high`; empty if `low` equals `high`."""
    if low >= high:
        return ""
    within = prices.filter(prices.is_between(low, high))
    bars = ((within - low) / (high - low) * _BARS).floor().clip(0, _BARS - 1).cast(pl.Int64)
    counts = dict(bars.value_counts().iter_rows())
    return sparkline([counts.get(bar, 0) for bar in range(_BARS)], lowest=0)
