"""ScanStatistics: the statistics of a read of a search, and figures of its products."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from octogen_dagster.api.search import ProductSearch
from octogen_dagster.frames.effective_query import EffectiveQuery, combine
from octogen_dagster.frames.statistics import Figures, ReadStatistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from octogen_dagster.frames.decode import ProductPage

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_MAX_CURRENCIES = 5
_CURRENCY = pl.col("currency").str.to_lowercase()


@dataclass
class ScanStatistics(ReadStatistics):
    """The statistics of an execution of a `ProductScan`.

    `started_at` is the `fetched_at` of the rows.

    Attributes:
        search: The search that was read.
        expected_rows: The number of rows of the catalogs; None if it is not known.
        rows_per_product: What of it comes for each product of the sources, as the latest snapshot
            says; None if `expected_rows` is as the sources count.
        product_counts: The number of products of each catalog by its source.
        rows_by_catalog: Rows read of each catalog.
        truncated: True if the cap left products unread.
        catalogs: The keys of the catalogs that were read, where they are known.
        walks: The number of walks that read them.
        likely_rows: The number of rows that there will be, as far as is known: what came of the
            catalogs that have ended, and what is expected of the others; None if it is not known.
        pages: Pages decoded, saved ones included.
        received_pages: Pages received, of which the query may not have taken all.
        repeats: Products that came again and were removed.
        resumed_pages: Saved pages, which were not requested.
        first_request_id: Request id of the first page.
        last_request_id: Request id of the last page.
        effective_queries: The effective query of page 1 by catalog, where the service tells it.
    """

    search: ProductSearch = field(default_factory=ProductSearch)
    expected_rows: int | None = None
    rows_per_product: float | None = None
    product_counts: dict[str, int] = field(default_factory=dict)
    rows_by_catalog: Counter[str | None] = field(default_factory=Counter)
    truncated: bool = False
    catalogs: list[str] = field(default_factory=list)
    walks: int = 0
    likely_rows: int | None = None
    pages: int = 0
    received_pages: int = 0
    repeats: int = 0
    resumed_pages: int = 0
    first_request_id: str | None = None
    last_request_id: str | None = None
    effective_queries: dict[str, EffectiveQuery] = field(default_factory=dict)

    @property
    def effective_query(self) -> EffectiveQuery | None:
        """The effective query, or those of the catalogs if they differ; None if unknown."""
        return combine(self.effective_queries)

    def add(self, frame: pl.DataFrame, pages: Sequence[ProductPage]) -> None:
        """Count the rows and pages of a frame."""
        self.rows += len(frame)
        self.pages += len(pages)
        for page in pages:
            self.unknown_fields.update(page.unknown)
        self.first_request_id = self.first_request_id or pages[0].request_id
        self.last_request_id = pages[-1].request_id

    def figures(self) -> Figures:
        """Return the figures by name."""
        source = "service, continued from saved pages" if self.resumed_pages else "service"
        figures: Figures = {
            "search": self.search.as_json(),
            "source": source,
            "truncated": self.truncated,
            "empty": not self.rows,
            "walks": self.walks,
            "pages": self.pages,
            "resumed_pages": self.resumed_pages,
            "repeats_removed": self.repeats,
            **super().figures(),
            **self.cost_figures(self.prices.search_page_usd, self._pages_not_paid()),
        }
        if self.first_request_id and self.last_request_id:
            figures["first_request_id"] = self.first_request_id
            figures["last_request_id"] = self.last_request_id
        if query := self.effective_query:
            figures["effective_query"] = query
        if self.expected_rows is not None:
            figures["expected_rows"] = self.expected_rows
        if self.rows_per_product is not None:
            figures["rows_per_product"] = round(self.rows_per_product, 4)
        return figures

    def progress(self) -> str:
        """Return a line about the progress of the read."""
        catalogs = self.search.catalogs
        subject = f"Catalog {catalogs[0]!r}" if len(catalogs) == 1 else "The search"
        of = f" of {self.likely_rows:,}" if self.likely_rows else ""
        return (
            f"{subject}: {self.received_rows:,}{of} products in {self.received_pages:,} pages, "
            f"{self.cost(self.prices.search_page_usd)}{self.speed(self.likely_rows)}"
        )

    def _pages_not_paid(self) -> int:
        """The number of pages that saved ones spared, less the requests that compared these."""
        price = self.prices.search_page_usd
        paid = round(self.cost_usd / price) if price else 0
        return max(0, min(self.resumed_pages, self.pages - paid))


def product_figures(snapshot: pl.LazyFrame) -> Figures:
    """Compute the shares of null and the quantiles of the price of a product snapshot.

    Prices of two currencies do not compare, so the quantiles are of each of the five currencies
    with the most products. The median is a number of its own, which Dagster plots: `price_p50_eur`,
    and `price_p50_no_currency` for products without one. `price_quantiles` has all of them.

    Args:
        snapshot: Columns as in `PRODUCT_SCHEMA`.
    """
    price = pl.col("current_price")
    figures: Figures = {
        **_finite(
            snapshot.select(
                null_share_current_price=price.is_null().mean(),
                null_share_brand=pl.col("brand").struct.field("name").is_null().mean(),
            )
        )
    }
    quantiles: dict[str, object] = {}
    for currency in _currencies(snapshot):
        of_currency = _finite(
            snapshot.filter(_CURRENCY.eq_missing(pl.lit(currency))).select(
                price.quantile(share).alias(f"p{round(share * 100):02}") for share in _QUANTILES
            )
        )
        name = currency or "no_currency"
        if of_currency:
            quantiles[name] = of_currency
        if "p50" in of_currency:
            figures[f"price_p50_{name}"] = of_currency["p50"]
    return {**figures, "price_quantiles": quantiles} if quantiles else figures


def _currencies(snapshot: pl.LazyFrame) -> list[str | None]:
    """Return the codes of the currencies with the most products; None is for products without."""
    counts = snapshot.group_by(_CURRENCY).len().collect(engine="streaming")
    currency = pl.col("currency")
    known = counts.filter(currency.is_null() | currency.str.contains("^[a-z]{3}$"))
    most = known.sort("len", "currency", descending=[True, False]).head(_MAX_CURRENCIES)
    return most.get_column("currency").to_list()


def _finite(frame: pl.LazyFrame) -> dict[str, float]:
    """Return the values of the only row that are numbers."""
    row: dict[str, float | None] = frame.collect(engine="streaming").row(0, named=True)
    return {
        name: round(value, 4)
        for name, value in row.items()
        if value is not None and math.isfinite(value)
    }
