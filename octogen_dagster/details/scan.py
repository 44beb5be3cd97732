"""DetailScan: the full view of each product of a snapshot, looked up in threads or carried over.

Rows are carried over from the previous details snapshot where the listing did not change: a semi
join finds them, and an anti join the products that are looked up. Both compare hashes of the
identity and of the listing, of which an earlier version may have stored less.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from octogen_dagster.api.estimate import estimate_lookups
from octogen_dagster.background import throttled
from octogen_dagster.errors import (
    CONCERNS_ALL,
    OctogenError,
    OctogenNotFoundError,
    OctogenSnapshotError,
)
from octogen_dagster.frames.cells import (
    Cells,
    Figures,
    Row,
    brand_text,
    cost_text,
    first_rows,
    price_text,
    product_link,
)
from octogen_dagster.frames.columns import (
    DETAIL_DESCRIPTIONS,
    DETAIL_SCHEMA,
    DETAIL_SCHEMA_VERSION,
    DIGEST,
    DIGESTED,
    FAILED,
    FOUND,
    GONE,
    IDENTITY,
    LISTED,
    MISMATCH,
    PRODUCT_SCHEMA,
    evolved,
)
from octogen_dagster.frames.kinds import TableKind
from octogen_dagster.frames.source import Limits, Metrics, Outcome, Reading
from octogen_dagster.frames.stored import PRODUCT_KEY
from octogen_dagster.io_source import Query, check, collect_batches, io_source
from octogen_dagster.printable import count, usd
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
"""Rows in a row group of a details file. A details row is as large as ten product rows."""
MAX_FAILURES_IN_A_ROW = 50
"""The failures in a row, each after its retries, that mean that the service is down."""

_STATUSES = ("found", "gone", "mismatched", "failed")
_ROWS_PER_FRAME = 500
_MAX_PRODUCTS_PER_JOB = 25  # fewer results in a queue cost less time
_PRODUCTS_PER_CHUNK = 5_000
_IDENTITY_AND_LISTING = [*IDENTITY, "listed"]
_LOOKED_UP = {
    **{name: DETAIL_SCHEMA[name] for name in _IDENTITY_AND_LISTING},
    **{name: DETAIL_SCHEMA[name] for name in ("status", "error", "looked_up_at")},
    "lookup": pl.Binary(),
}
_IS_FOUND = pl.col("status") == FOUND
_LISTED_FIELDS = [*LISTED, DIGEST]
_TEXTS: Mapping[str, pl.Expr] = {
    **{name: pl.col(name).list.join("\t") for name in ("category_path", "colors", "sizes")},
    "brand": pl.col("brand").struct.field("name"),
    "currency": pl.col("currency"),
    # Addresses on Octogen's CDN may come and go with the service's contract.
    "images": pl.col("images").list.eval(pl.element().struct.field("url")).list.join("\t"),
}
"""The columns that are digested, as texts."""
_INDEXED = ("indexed", None)  # the seed generation has an index only, and does not name it

_Row = dict[str, Any]
_Result = tuple[_Row, Mapping[str, int]]


class DetailScan:
    """A source: the full views of the products of a snapshot, which are looked up.

    A product that is gone or whose lookup fails is a row with that status. If an address leads to
    another product, the status is `mismatch` and that product is not stored. Too many failures, a
    refused API key or spent credit end the execution. The products are executed twice. `statistics`
    are those of the last execution.
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
        """The costs and budget of all executions."""
        return self.service.spending

    @contextmanager
    def reading(self, target: SnapshotTarget, stop: threading.Event) -> Iterator[Reading]:
        """Let the block store the rows in a target, some of the latest details snapshot."""

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
            None if statistics.complete else "it did not come to its end",
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
        previous = _previous_rows(target) if self.only_changed else _NO_ROWS
        products = _with_key(_listed(head), previous.fields)
        # A listing of an earlier version, which lacks fields, is replaced by that of now.
        replaced = [] if previous.fields == _LISTED_FIELDS else ["listed"]
        keys = products.select("key", *replaced).collect(engine="streaming")
        statistics.products = len(keys)
        kept = keys.join(previous.keys, on="key", how="semi").unique("key")
        # With the order kept, Polars holds the keys in memory; without it, the rows.
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
        self._tell()

    def _announce(self, lookups: int, target: SnapshotTarget) -> None:
        estimate = estimate_lookups(lookups, self.service)
        carried_over = self.statistics.products - lookups
        also = f"; {carried_over:,} rows are carried over" if carried_over else ""
        target.log(f"Details: {estimate}{also}.")
        left = self.service.spending.left_usd
        if left is not None and estimate.cost_usd > left:
            target.warn(
                f"The budget leaves {usd(left)} for these lookups. If it is spent before the last "
                "one, nothing is published, and the lookups are not kept."
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

            def add_up() -> None:
                self.statistics.received(len(rows))
                self.statistics.update(lookups.sent, service.spending)

            def report() -> None:
                add_up()
                self._tell()

            tell_now_and_then = throttled(report, self.report_interval_seconds)
            try:
                for results in lookups:
                    tell_now_and_then()
                    for row, unknown in results or ():
                        limit.note(row)
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
                add_up()

    def _details(self, rows: list[_Row]) -> pl.DataFrame:
        frame = with_details(pl.DataFrame(rows, schema=_LOOKED_UP)).select(*DETAIL_SCHEMA)
        self.statistics.add(frame)
        return frame

    def _tell(self) -> None:
        if self._report:
            self._report(self.statistics)


class _PreviousRows(NamedTuple):
    """The rows of a details snapshot that were found, with keys of the `fields` of their listing.

    An earlier version has fewer fields.
    """

    rows: pl.LazyFrame
    keys: pl.DataFrame
    fields: list[str]


def _previous_rows(target: SnapshotTarget) -> _PreviousRows:
    """Return the rows of the latest details snapshot that can be carried over."""
    try:
        snapshot = target.latest()
        if snapshot is None:
            return _NO_ROWS
        rows, lacking = evolved(snapshot, DETAIL_SCHEMA)
        fields = [name for name in _LISTED_FIELDS if f"listed.{name}" not in lacking]
        # A product that was gone may be back, for example when a grant was renewed.
        rows = _with_key(rows, fields).filter(_IS_FOUND)
        keys = rows.select("key").collect(engine="streaming")
    except (OctogenSnapshotError, OSError, ValueError, pl.exceptions.PolarsError) as error:
        reason = str(error).partition("\n")[0]
        target.warn(
            f"No row of the details snapshot before is carried over: {reason} Every product is "
            "looked up."
        )
        return _NO_ROWS
    if unknown := [path for path in lacking if not path.startswith("listed.")]:
        target.warn(
            f"The details snapshot before has no {', '.join(unknown)}, which this version stores: "
            "null in rows that are carried over, until their products change. To have all of them "
            "now, run once without only_changed."
        )
    return _PreviousRows(rows, keys, fields)


def _listed(snapshot: pl.LazyFrame) -> pl.LazyFrame:
    """Return the identity and the listing of each product."""
    columns = snapshot.collect_schema()
    if missing := [name for name in (*IDENTITY, *LISTED) if name not in columns]:
        raise ValueError(
            f"The products have no column {', '.join(missing)}: give a product snapshot, with "
            "the columns of octogen_dagster.schemas.PRODUCT_SCHEMA."
        )
    typed = {name: pl.col(name).cast(PRODUCT_SCHEMA[name]) for name in (*IDENTITY, *LISTED)}
    identity = (typed[name] for name in IDENTITY)
    listed = pl.struct(*(typed[name] for name in LISTED), _digest(columns)).alias("listed")
    return snapshot.select(*identity, listed)


def _digest(columns: pl.Schema) -> pl.Expr:
    """Return a digest of what else is listed. Other versions of Polars compute the same."""
    texts = [
        _TEXTS[name].fill_null("") if columns.get(name) == PRODUCT_SCHEMA[name] else pl.lit("")
        for name in DIGESTED
    ]
    return (
        pl.concat_str(texts, separator="\n")
        .map_batches(_digests, return_dtype=pl.UInt64(), is_elementwise=True)
        .alias(DIGEST)
    )


def _digests(texts: pl.Series) -> pl.Series:
    digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return pl.Series([int.from_bytes(each, "big") for each in digests], dtype=pl.UInt64())


def _with_key(frame: pl.LazyFrame, fields: Sequence[str]) -> pl.LazyFrame:
    """Add a hash of the identity and of some fields of the listing."""
    listed = pl.col("listed").struct
    # Snapshots of earlier versions have null where the service did not send it, which means true.
    active = listed.with_fields(pl.field("is_active").fill_null(value=True))
    values = [pl.col("listed").struct.field(name) for name in fields]
    return frame.with_columns(active).with_columns(
        pl.struct(*IDENTITY, *values).hash().alias("key")
    )


_NO_ROWS = _PreviousRows(
    _with_key(DETAIL_SCHEMA.to_frame().lazy(), _LISTED_FIELDS),
    pl.DataFrame(schema={"key": pl.UInt64()}),
    _LISTED_FIELDS,
)


def _jobs(products: pl.LazyFrame, size: int) -> Iterator[list[_Row]]:
    size = max(1, min(size, _MAX_PRODUCTS_PER_JOB))
    for frame in collect_batches(products, _PRODUCTS_PER_CHUNK, lazy=True):
        for some in frame.iter_slices(size):
            yield some.to_dicts()


def _look_up_all(
    client: BlockingClient, products: list[_Row]
) -> Generator[list[_Result], None, None]:
    """Look up some products, and yield what came so far as soon as one fails."""
    results: list[_Result] = []
    for product in products:
        results.append(result := _look_up(client, product))
        if result[0]["status"] == FAILED:
            yield results
            results = []
    yield results


def _look_up(client: BlockingClient, product: _Row) -> _Result:
    """Return the product with the columns of its lookup, and the fields that nobody knows."""
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
        return "The response has no uuid, so it may be of another product."
    return f"The address leads to another product, {uuid!r}."


class _FailureLimit:
    """Ends an execution when too many lookups failed, in all or one after another.

    Rows that are carried over count in the total, so that a product whose lookup always fails is
    one of all products, and not of the few that changed.
    """

    def __init__(self, percent: float, total: int) -> None:
        self._percent = percent
        self._total = total
        self._failed = 0
        self._in_a_row = 0
        self._first_error = ""

    def note(self, row: _Row) -> None:
        if row["status"] != FAILED:
            self._in_a_row = 0
            return
        self._failed += 1
        self._in_a_row += 1
        self._first_error = self._first_error or row["error"]
        if self._failed > self._percent * self._total / 100:
            raise OctogenSnapshotError(
                f"More than {self._percent:g} % of the lookups failed: {self._failed:,} of "
                f"{self._total:,}; the first: {self._first_error} Nothing was published, the "
                "snapshot before is untouched: run again, or raise max_failed_percent."
            )
        if self._in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise OctogenSnapshotError(
                f"{self._in_a_row} lookups in a row failed, retries included; the last: "
                f"{row['error']} Nothing was published, the snapshot before is untouched: run "
                "again when the service is back."
            )


@dataclass
class DetailStatistics(ReadStatistics):
    """The statistics of an execution of a `DetailScan`, which has one row for each product."""

    products: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    carried_over: int = 0  # rows of the previous details snapshot
    oldest_lookup: datetime | None = None  # of all rows
    first_error: str | None = None  # of a row

    def add(self, frame: pl.DataFrame, *, carried_over: bool = False) -> None:
        """Count the rows of a frame."""
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
        """Count the rows that came and are in no frame yet, besides the others."""
        self.received_rows = self.rows + waiting
        self.requests_left = self.products - self.received_rows

    def metrics(self) -> Metrics:
        """Return the metrics by name."""
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
        """Return metrics of the rows by name."""
        metrics = {"oldest_lookup": self.oldest_lookup, "first_error": self.first_error}
        return {name: figure for name, figure in metrics.items() if figure is not None}

    def progress(self, subject: str) -> str:
        """Return a line about the progress of the lookups for a subject, such as an asset."""
        return (
            f"{subject}: {self.received_rows:,} of {self.products:,} products, "
            f"{self.cost(self.prices.lookup_usd)}{self.speed(self.products)}; "
            f"{self.by_status[FOUND]:,} found, {self.by_status[GONE]:,} gone, "
            f"{self.by_status[FAILED]:,} failed, {self.carried_over:,} carried over"
        )


def _cells(row: Row) -> Cells:
    return {
        "product": product_link(row, row["title"]),
        "status": row["status"],
        "brand": brand_text(row["brand"]),
        "price": price_text(row["current_price"], row["currency"]),
    }


def _sentence(metrics: Figures, _: pl.LazyFrame) -> str:
    statuses = [f"{metrics[name]:,} {name}" for name in _STATUSES if metrics.get(name)]
    text = f"**{count(metrics['rows'], 'product')}**: {', '.join(statuses) or 'none looked up'}"
    carried = [f"{metrics['carried_over']:,} carried over"] if metrics.get("carried_over") else []
    return "; ".join([text, *carried, *cost_text(metrics)])


DETAILS_KIND = TableKind(
    DETAIL_SCHEMA,
    DETAIL_DESCRIPTIONS,
    key=tuple(PRODUCT_KEY),
    volatile=("looked_up_at",),
    made_from={
        **{name: ["product_url"] for name in DETAIL_SCHEMA},
        **{name: [name] for name in IDENTITY},
        "status": ["uuid", "product_url"],
        "listed": [*LISTED, *DIGESTED],
    },
    sentence=_sentence,
    preview=first_rows(
        _cells, ["title", "product_url", "status", "brand", "current_price", "currency"]
    ),
    collected=("looked_up",),
    line="products",
)
