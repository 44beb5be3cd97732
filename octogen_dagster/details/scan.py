"""DetailScan: look up a snapshot's products concurrently, and reuse rows of unchanged products."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from octogen_dagster.api.estimate import estimate_lookups
from octogen_dagster.background import throttled
from octogen_dagster.details.carry_over import (
    LISTED_FIELDS,
    NO_ROWS,
    listed,
    previous_rows,
    with_key,
)
from octogen_dagster.errors import (
    CONCERNS_ALL,
    OctogenError,
    OctogenNotFoundError,
    OctogenSnapshotError,
)
from octogen_dagster.frames.columns import (
    DETAIL_SCHEMA,
    DETAIL_SCHEMA_VERSION,
    FAILED,
    FOUND,
    GONE,
    IDENTITY,
    MISMATCH,
)
from octogen_dagster.frames.source import Limits, Metrics, Outcome, Reading
from octogen_dagster.io_source import Query, check, collect_batches, io_source
from octogen_dagster.printable import usd
from octogen_dagster.reading.decode import read_lookup, with_details
from octogen_dagster.reading.statistics import ReadStatistics
from octogen_dagster.reading.workers import Workers
from octogen_dagster.validation import require_percent

if TYPE_CHECKING:
    import threading

    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.catalog_sources import CatalogService
    from octogen_dagster.api.spending import Spending
    from octogen_dagster.frames.source import SnapshotTarget

ROW_GROUP_SIZE = 2_000
"""The number of rows in a row group. A details row is about ten times as large as a product row."""
MAX_FAILURES_IN_A_ROW = 50
"""The number of consecutive failed lookups after which the service is considered down."""

_ROWS_PER_FRAME = 500
_MAX_PRODUCTS_PER_JOB = 25  # fewer queued results take less time
_PRODUCTS_PER_CHUNK = 5_000
_IDENTITY_AND_LISTING = [*IDENTITY, "listed"]
_LOOKED_UP = {
    **{name: DETAIL_SCHEMA[name] for name in _IDENTITY_AND_LISTING},
    **{name: DETAIL_SCHEMA[name] for name in ("status", "error", "looked_up_at")},
    "lookup": pl.Binary(),
}
_INDEXED = ("indexed", None)  # the service's seed generation has an index only and omits the source

_Row = dict[str, Any]
_Result = tuple[_Row, Mapping[str, int]]


class DetailScan:
    """A source that looks up the full view of each product in a snapshot.

    Each product has one row, and `status` is the result of its lookup. The status is `gone` if the
    product no longer exists, `failed` if the lookup failed, and `mismatch` if the URL leads to
    another product. The execution ends after too many failures, if the API key is rejected or if
    the credit runs out. The products query runs twice. `statistics` describes the latest execution.
    """

    report_interval_seconds = 10.0

    def __init__(
        self,
        products: pl.LazyFrame,
        service: CatalogService,
        *,
        only_changed: bool = False,
        max_failed_percent: float = 5,
        report: Callable[[DetailStatistics], None] | None = None,
    ) -> None:
        require_percent("max_failed_percent", max_failed_percent)
        self.products = products
        self.service = service
        self.only_changed = only_changed
        self.max_failed_percent = max_failed_percent
        self.statistics = DetailStatistics()
        self._report = report

    @property
    def spending(self) -> Spending:
        """The costs and the budget, shared by all executions."""
        return self.service.spending

    @contextmanager
    def reading(self, target: SnapshotTarget, stop: threading.Event) -> Iterator[Reading]:
        """Yield a `Reading` that contains the product details.

        Rows of unchanged products are reused from the target's latest snapshot.
        """

        def frames(query: Query, stop: threading.Event) -> Iterator[pl.DataFrame]:
            return self._frames(query, stop, target)

        yield Reading(
            io_source(DETAIL_SCHEMA, frames, stop),
            self._outcome,
            Limits(row_group_size=ROW_GROUP_SIZE),
        )

    def _outcome(self) -> Outcome:
        statistics = self.statistics
        return Outcome(
            statistics.rows,
            None if statistics.complete else "it did not finish",
            {
                "octogen.fetched_at": statistics.started_at.isoformat(),
                "octogen.schema_version": str(DETAIL_SCHEMA_VERSION),
            },
            lambda: {"only_changed": self.only_changed, **statistics.metrics()},
            statistics.row_metrics,
        )

    def _frames(
        self, query: Query, stop: threading.Event, target: SnapshotTarget
    ) -> Iterator[pl.DataFrame]:
        statistics = self.statistics = DetailStatistics()
        head = self.products if query.n_rows is None else self.products.head(query.n_rows)
        previous = previous_rows(target) if self.only_changed else NO_ROWS
        products = with_key(listed(head), previous.fields)
        # If an earlier version stored fewer listing fields, store the current listing instead.
        replaced = [] if previous.fields == LISTED_FIELDS else ["listed"]
        keys = products.select("key", *replaced).collect(engine="streaming")
        statistics.products = len(keys)
        kept = keys.join(previous.keys, on="key", how="semi").unique("key")
        # With maintain_order, Polars keeps only the keys in memory; otherwise, all rows.
        carried = (
            previous.rows.drop(replaced)
            .join(kept.lazy(), on="key", how="inner", maintain_order="left")
            .select(*DETAIL_SCHEMA)
        )
        lookups = len(keys.join(kept, on="key", how="anti"))
        self._announce(lookups, target)
        for frame in collect_batches(carried, ROW_GROUP_SIZE, lazy=True):
            statistics.add(frame, carried_over=True)
            yield frame
        fresh = products.join(kept.lazy(), on="key", how="anti", maintain_order="left")
        jobs = _jobs(fresh.drop("key"), lookups // (4 * self.service.concurrency))
        yield from self._looked_up(jobs, self.service.for_execution(target.warn), stop)
        statistics.complete = True
        self._report_progress()

    def _announce(self, lookups: int, target: SnapshotTarget) -> None:
        estimate = estimate_lookups(lookups, self.service)
        carried_over = self.statistics.products - lookups
        carried = f"; {carried_over:,} rows are carried over" if carried_over else ""
        target.log(f"Details: {estimate}{carried}.")
        left = self.service.spending.left_usd
        if left is not None and estimate.cost_usd > left:
            target.warn(
                f"Only {usd(left)} of the budget is left for these lookups. If the budget runs out "
                "before the last lookup, nothing is published and all lookups are lost."
            )

    def _looked_up(
        self, jobs: Iterator[list[_Row]], service: CatalogService, stop: threading.Event
    ) -> Iterator[pl.DataFrame]:
        limit = _FailureLimit(self.max_failed_percent, self.statistics.products)
        rows: list[_Row] = []
        with Workers(
            service,
            jobs,
            _look_up_all,
            threads=service.concurrency,
            ahead=2 * service.concurrency,
            check=functools.partial(check, stop),
            name="octogen-lookup",
        ) as lookups:

            def update_statistics() -> None:
                self.statistics.received(len(rows))
                self.statistics.update(lookups.sent, service.spending)

            def report() -> None:
                update_statistics()
                self._report_progress()

            report_regularly = throttled(report, self.report_interval_seconds)
            try:
                for results in lookups:
                    report_regularly()
                    for row, unknown in results or ():
                        limit.count(row)
                        self.statistics.unknown_fields.update(unknown)
                        rows.append(row)
                    if len(rows) >= _ROWS_PER_FRAME:
                        frame = self._details(rows)
                        rows.clear()
                        yield frame
                frame = self._details(rows)
                rows.clear()
                yield frame
            finally:
                rows.clear()
                update_statistics()

    def _details(self, rows: list[_Row]) -> pl.DataFrame:
        frame = with_details(pl.DataFrame(rows, schema=_LOOKED_UP)).select(*DETAIL_SCHEMA)
        self.statistics.add(frame)
        return frame

    def _report_progress(self) -> None:
        if self._report:
            self._report(self.statistics)


def _jobs(products: pl.LazyFrame, size: int) -> Iterator[list[_Row]]:
    size = max(1, min(size, _MAX_PRODUCTS_PER_JOB))
    for frame in collect_batches(products, _PRODUCTS_PER_CHUNK, lazy=True):
        for some in frame.iter_slices(size):
            yield some.to_dicts()


def _look_up_all(
    client: BlockingClient, products: list[_Row]
) -> Generator[list[_Result], None, None]:
    """Look up products and yield the results in batches.

    After a failure, yield the batch immediately.
    """
    results: list[_Result] = []
    for product in products:
        results.append(result := _look_up(client, product))
        if result[0]["status"] == FAILED:
            yield results
            results = []
    yield results


def _look_up(client: BlockingClient, product: _Row) -> _Result:
    """Look up a product. Return a pair: the product's row, and a count for each unknown field."""
    response, error = None, None
    try:
        response = client.lookup(product["product_url"] or "", read_lookup)
        status = FOUND if response.source in _INDEXED else GONE
    except CONCERNS_ALL:
        raise
    except (OctogenError, ValueError) as failure:
        if isinstance(failure, OctogenNotFoundError) and failure.detail == "product_not_found":
            status = GONE
        else:
            status, error = FAILED, str(failure)
    if response and status == FOUND and response.uuid != product["uuid"]:
        status, error = MISMATCH, _mismatch(response.uuid)
    row = {
        **product,
        "status": status,
        "error": error,
        "looked_up_at": datetime.now(UTC),
        "lookup": response and response.content,
    }
    return row, response.unknown if response else {}


def _mismatch(uuid: str | None) -> str:
    if uuid is None:
        return "The response has no uuid, so it might describe another product."
    return f"The URL leads to another product, {uuid!r}."


class _FailureLimit:
    """Raises an error if too many lookups fail, in total or in a row.

    Rows that are carried over count as successful lookups. Otherwise, if only a few products have
    changed, a few products whose lookup always fails would exceed the limit.
    """

    def __init__(self, percent: float, total: int) -> None:
        self._percent = percent
        self._total = total
        self._failed = 0
        self._in_a_row = 0
        self._first_error = ""

    def count(self, row: _Row) -> None:
        if row["status"] != FAILED:
            self._in_a_row = 0
            return
        self._failed += 1
        self._in_a_row += 1
        self._first_error = self._first_error or row["error"]
        if self._failed > self._percent * self._total / 100:
            raise OctogenSnapshotError(
                f"More than {self._percent:g} % of lookups failed: {self._failed:,} of "
                f"{self._total:,}. First error: {self._first_error} Nothing was published, and the "
                "previous snapshot is unchanged. Rerun the asset, or increase max_failed_percent."
            )
        if self._in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise OctogenSnapshotError(
                f"{self._in_a_row} lookups in a row failed, even after retries. Last error: "
                f"{row['error']} Nothing was published, and the previous snapshot is unchanged. "
                "Rerun the asset when the service is available again."
            )


@dataclass
class DetailStatistics(ReadStatistics):
    """Statistics for one `DetailScan` execution."""

    products: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    carried_over: int = 0
    oldest_lookup: datetime | None = None
    first_error: str | None = None

    def add(self, frame: pl.DataFrame, *, carried_over: bool = False) -> None:
        self.rows += len(frame)
        self.carried_over += len(frame) if carried_over else 0
        self.by_status.update(frame.get_column("status"))
        oldest: Any = frame.get_column("looked_up_at").min()
        if oldest is not None:
            self.oldest_lookup = min(oldest, self.oldest_lookup or oldest)
        self.first_error = self.first_error or next(
            iter(frame.get_column("error").drop_nulls().head(1)), None
        )

    def received(self, waiting: int) -> None:
        """Update `received_rows`; `waiting` is the number of rows that are not in a frame yet."""
        self.received_rows = self.rows + waiting
        self.requests_left = self.products - self.received_rows

    def metrics(self) -> Metrics:
        mismatched = self.by_status[MISMATCH]
        return {
            "found": self.by_status[FOUND],
            "gone": self.by_status[GONE],
            **({"mismatched": mismatched} if mismatched else {}),
            "failed": self.by_status[FAILED],
            "looked_up": self.rows - self.carried_over,
            "carried_over": self.carried_over,
            **super().metrics(),
            **self.cost_metrics(self.prices.lookup_usd, self.carried_over),
        }

    def row_metrics(self) -> Metrics:
        metrics = {"oldest_lookup": self.oldest_lookup, "first_error": self.first_error}
        return {name: figure for name, figure in metrics.items() if figure is not None}

    def progress(self, subject: str) -> str:
        """Return a progress line for the log, prefixed with `subject`."""
        return (
            f"{subject}: {self.received_rows:,} of {self.products:,} products, "
            f"{self.cost(self.prices.lookup_usd)}{self.speed(self.products)}; "
            f"{self.by_status[FOUND]:,} found, {self.by_status[GONE]:,} gone, "
            f"{self.by_status[FAILED]:,} failed, {self.carried_over:,} carried over"
        )
