"""DetailScan: a lazy frame of the full view of each product of a snapshot."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from octogen_dagster.api.estimate import estimate_lookups
from octogen_dagster.api.spending import usd
from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.columns import DETAIL_SCHEMA, DETAIL_SCHEMA_VERSION
from octogen_dagster.frames.details.failure_limit import FailureLimit
from octogen_dagster.frames.details.lookups import LookupReader
from octogen_dagster.frames.details.rows import (
    ROW_GROUP_SIZE,
    DetailRows,
    ListedProducts,
    ReusableRows,
)
from octogen_dagster.frames.details.statistics import DetailStatistics
from octogen_dagster.frames.io_source import Query, interruptible, io_source
from octogen_dagster.frames.progress import Throttle
from octogen_dagster.frames.reading import Limits, Outcome, Reading
from octogen_dagster.settings import require_fraction

if TYPE_CHECKING:
    from octogen_dagster.api.cancellation import CancelScope
    from octogen_dagster.api.connection import Connection
    from octogen_dagster.api.spending import Spending
    from octogen_dagster.frames.reading import SnapshotPlace

_LOGGER = logging.getLogger(__name__)
_MAX_BATCHES_AHEAD = 4


class DetailScan:
    """The full views of the products of a snapshot, as a lazy frame.

    The products are looked up when the frame is executed, each address once. A product that is gone
    or whose lookup fails is a row with that status. If an address leads to another product, the
    status is `mismatch` and that product is not stored. Too many failures, a refused API key or
    spent credit end the execution.

    Args:
        products: A product snapshot with the columns of `PRODUCT_SCHEMA`; it is executed twice.
        connection: The settings of the service; `concurrency` lookups are made at a time.
        only_changed: True if rows of the previous details snapshot are carried over whose products
            were found and whose listing is unchanged.
        failure_threshold: The share of the lookups, 0 to 1, that may fail; rows that are carried
            over count as lookups that succeeded.
        report: Called with the statistics about every ten seconds, and at the end.

    Attributes:
        frame: One row for each product, in order, as a lazy frame with the schema `DETAIL_SCHEMA`.
        statistics: The statistics of the last execution of the frame.

    Raises:
        ValueError: failure_threshold is not from 0 to 1.
    """

    report_interval_seconds = 10.0

    def __init__(
        self,
        products: pl.LazyFrame,
        connection: Connection,
        *,
        only_changed: bool = False,
        failure_threshold: float = 0.05,
        report: Callable[[DetailStatistics], None] | None = None,
    ) -> None:
        require_fraction("failure_threshold", failure_threshold)
        self.products = products
        self.connection = connection
        self.only_changed = only_changed
        self.failure_threshold = failure_threshold
        self.statistics = DetailStatistics()
        self._report = report
        self._frame = io_source(DETAIL_SCHEMA, self._frames)

    def __reduce__(self) -> tuple[Callable[..., DetailScan], tuple[Any, ...]]:
        restore = functools.partial(
            type(self), only_changed=self.only_changed, failure_threshold=self.failure_threshold
        )
        return restore, (self.products, self.connection)

    @property
    def frame(self) -> pl.LazyFrame:
        """One row for each product, in order, with the schema `DETAIL_SCHEMA`."""
        return self._frame

    @property
    def spending(self) -> Spending:
        """What all executions count their costs in."""
        return self.connection.spending

    @contextmanager
    def reading(self, place: SnapshotPlace) -> Iterator[Reading]:
        """Let the block store the rows in a place, some of them of the latest details snapshot."""
        stop = interruptible()

        def frames(query: Query, stop: CancelScope) -> Iterator[pl.DataFrame]:
            return self._frames(query, stop, place)

        yield Reading(
            io_source(DETAIL_SCHEMA, frames, stop),
            self._outcome,
            Limits(row_group_size=ROW_GROUP_SIZE),
            stop=stop.cancel,
        )

    def _outcome(self) -> Outcome:
        statistics = self.statistics
        return Outcome(
            statistics.rows,
            None if statistics.complete else "it did not come to its end",
            {
                "octogen.fetched_at": statistics.started_at.isoformat(),
                "octogen.schema_version": str(DETAIL_SCHEMA_VERSION),
            },
            lambda: {"only_changed": self.only_changed, **statistics.figures()},
            statistics.row_figures,
        )

    def _frames(
        self, query: Query, stop: CancelScope, place: SnapshotPlace | None = None
    ) -> Iterator[pl.DataFrame]:
        log, warn = (place.log, place.warn) if place else (_LOGGER.info, _LOGGER.warning)
        previous = self._previous(place) if place and self.only_changed else None
        n_rows = query.n_rows
        statistics = self.statistics = DetailStatistics()
        products = ListedProducts(self.products if n_rows is None else self.products.head(n_rows))
        statistics.products = products.count
        at_most = "at most " if previous is not None else ""
        estimate = estimate_lookups(products.count, self.connection)
        log(f"Details: {at_most}{estimate}.")
        left = self.connection.spending.left_usd
        if left is not None and estimate.cost_usd > left:
            warn(
                f"The budget leaves {usd(left)} for these lookups. If it is spent before the last "
                "one, nothing is published, and the lookups are not kept."
            )
        connection = replace(self.connection.with_own_spending().with_log(warn), scope=stop)
        limit = FailureLimit(self.failure_threshold, products.count, self.connection.retry.deadline)
        spending = connection.spending
        with LookupReader(connection, limit) as reader:
            rows = DetailRows(products, _reusable_rows(previous), reader, limit)
            statistics.unknown_fields = rows.unknown_fields
            try:
                yield from self._finished(rows, reader, spending)
            finally:
                statistics.received([])
                statistics.update(reader.sent, spending)
        statistics.complete = True
        self._tell()

    def _finished(
        self, rows: DetailRows, reader: LookupReader, spending: Spending
    ) -> Iterator[pl.DataFrame]:
        """Yield the rows of the batches while the lookups of the next ones are made."""
        report = Throttle(self._tell, self.report_interval_seconds)
        batches = rows.begin()
        begun = deque(itertools.islice(batches, _MAX_BATCHES_AHEAD))
        while begun:
            is_over = reader.wait(begun[0].lookups)
            self.statistics.received(begun)
            self.statistics.update(reader.sent, spending)
            report()
            if is_over:
                batch = begun.popleft()
                frame = rows.finish(batch)
                self.statistics.add(frame, batch)
                yield frame
                begun.extend(itertools.islice(batches, 1))

    def _tell(self) -> None:
        if self._report:
            self._report(self.statistics)

    def _previous(self, place: SnapshotPlace) -> pl.LazyFrame | None:
        try:
            return place.latest()
        except OctogenSnapshotError as error:
            place.log(f"{error} Every product is looked up.")
            return None


def _reusable_rows(previous: pl.LazyFrame | None) -> ReusableRows:
    if previous is not None:
        with contextlib.suppress(OSError, pl.exceptions.PolarsError):  # the file is damaged
            if previous.collect_schema() == DETAIL_SCHEMA:
                return ReusableRows(previous)
    return ReusableRows(DETAIL_SCHEMA.to_frame().lazy())
