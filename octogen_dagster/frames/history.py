"""The history of products: a row for each time that a product's values lasted, as pure functions.

A history and what was observed (`Observed`) are together as much as the tracked columns of all its
snapshots. So any snapshot can be put in or taken out, and the result depends only on which
snapshots are in it.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import polars as pl

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.changes import WATCHED, catalogs_without_products
from octogen_dagster.frames.columns import COLUMN_DESCRIPTIONS, PRODUCT_SCHEMA
from octogen_dagster.frames.source import Metrics

OBSERVED = "octogen.observed"
"""The metadata of a history's file that says which snapshots are in it."""
FORGOTTEN = "octogen.forgotten"
"""The metadata of a history's file with the `fetched_at` of snapshots that were taken out."""

TRACKED = [column for columns in WATCHED.values() for column in columns]
_MAY_BE_UNSENT = ["currency", "in_stock", "is_active"]
"""Columns that not every service sends; a snapshot without them has nulls in all rows."""
_PRODUCT = ["catalog_key", "uuid"]
_CHANGES = ["appeared", "reappeared", "changed"]
_PRODUCT_COLUMNS = {name: PRODUCT_SCHEMA[name] for name in (*_PRODUCT, "product_url", *TRACKED)}
_TIME = pl.Datetime("us", "UTC")

HISTORY_SCHEMA = pl.Schema(
    {
        **{name: PRODUCT_SCHEMA[name] for name in ("catalog_key", "uuid", "product_url")},
        "valid_from": _TIME,
        "valid_to": _TIME,
        "is_current": pl.Boolean(),
        "change": pl.Enum(_CHANGES),
        "changed": pl.List(pl.String),
        **{name: PRODUCT_SCHEMA[name] for name in TRACKED},
    }
)
HISTORY_DESCRIPTIONS = {
    "catalog_key": "The catalog the product belongs to.",
    "uuid": "The product's identity in Octogen.",
    "product_url": "The product's page at the merchant, as it was last seen.",
    "valid_from": "The `fetched_at` of the first snapshot with these values (UTC).",
    "valid_to": "The `fetched_at` of the first later snapshot without them (UTC); null if the last "
    "snapshot has them.",
    "is_current": "True if the last snapshot has the product with these values.",
    "change": "What happened at `valid_from`: appeared, reappeared or changed.",
    "changed": f"What changed of a changed product: {', '.join(WATCHED)}.",
    **{name: COLUMN_DESCRIPTIONS[name] for name in TRACKED},
}

_PRODUCTS_AT_ONCE = 200_000
"""The number of differing products that are in memory at the same time."""
_BATCH_ROWS = 40_000
_MAX_CURRENCIES = 5
_MAX_DROPS = 10
_SAMPLED = 64
"""One in so many products says where to divide them."""
_KEY = pl.struct(_PRODUCT).hash()


class StoredSnapshot(NamedTuple):
    """A snapshot of products that may be put into a history.

    Attributes:
        open: Opens its file: the rows and the metadata.
        name: The partition that it is of, if the history reads several.
        version: What tells it from another one of that name.
    """

    open: Callable[[], tuple[pl.LazyFrame, Mapping[str, str]]]
    name: str = ""
    version: str = ""


@dataclass(frozen=True)
class SnapshotTimes:
    """The snapshots of all times of an asset's partitions.

    Attributes:
        of: Lists those of a catalog's partitions, or without catalogs of None.
    """

    of: Callable[[str | None], Sequence[StoredSnapshot]]


class Observation(NamedTuple):
    """What a snapshot says.

    Attributes:
        catalogs: The catalogs of which it has all products, in lower case, and "" for products
            without one; None for all catalogs.
        not_sent: The tracked columns that it says nothing about.
    """

    catalogs: frozenset[str] | None
    not_sent: frozenset[str] = frozenset()

    def covers(self, catalog: str | None) -> bool:
        return self.catalogs is None or (catalog or "").lower() in self.catalogs

    @property
    def is_covered(self) -> pl.Expr:
        """The rows of its catalogs."""
        if self.catalogs is None:
            return pl.lit(True)
        catalog = pl.col("catalog_key").fill_null("").str.to_lowercase()
        return catalog.is_in(sorted(self.catalogs))


Observed = Mapping[datetime, Observation]
"""The snapshots in a history by their `fetched_at`."""


def read_observed(metadata: Mapping[str, str]) -> dict[datetime, Observation]:
    """Read which snapshots are in a history from the metadata of its file, the oldest first."""
    return {
        datetime.fromisoformat(entry["fetched_at"]): Observation(
            None if entry["catalogs"] is None else frozenset(entry["catalogs"]),
            frozenset(entry["not_sent"]),
        )
        for entry in json.loads(metadata.get(OBSERVED, "[]"))
    }


def read_forgotten(metadata: Mapping[str, str]) -> set[datetime]:
    """Read which snapshots were taken out of a history from the metadata of its file."""
    return {datetime.fromisoformat(at) for at in json.loads(metadata.get(FORGOTTEN, "[]"))}


def history_metadata(observed: Observed, take_out: Iterable[datetime]) -> dict[str, str]:
    """Return the metadata of a history's file that says what is in it."""
    entries = [
        {
            "fetched_at": at.isoformat(),
            "catalogs": None if each.catalogs is None else sorted(each.catalogs),
            "not_sent": sorted(each.not_sent),
        }
        for at, each in sorted(observed.items())
    ]
    times = [at.isoformat() for at in sorted(take_out)]
    return {OBSERVED: json.dumps(entries), FORGOTTEN: json.dumps(times)}


def tracked_products(snapshot: pl.LazyFrame) -> pl.LazyFrame:
    """The columns of a snapshot that a history is made of, in their types."""
    schema, casts = snapshot.collect_schema(), []
    for name, wanted in {**_PRODUCT_COLUMNS, "fetched_at": _TIME}.items():
        found = schema.get(name)
        column = pl.col(name)
        if isinstance(found, pl.Datetime) and wanted == _TIME:
            is_naive = found.time_zone is None
            column = column.dt.replace_time_zone("UTC") if is_naive else column
        elif found is None or not (found in (wanted, pl.Null) or _is_lossless(found, wanted)):
            raise OctogenSnapshotError(
                f"A snapshot of products has {'no column' if found is None else 'a column'} "
                f"{name}{'' if found is None else f' of the type {found}'}, so it has no place in "
                f"a history. Store it as {wanted}, as octogen_dagster.PRODUCT_SCHEMA has it."
            )
        casts.append(column.cast(wanted))
    return snapshot.select(casts)


def _is_lossless(found: pl.DataType, wanted: pl.DataType) -> bool:
    is_text = isinstance(found, pl.Categorical | pl.Enum)
    return is_text if wanted == pl.String else wanted == pl.Float64 and found.is_numeric()


def observation_of(snapshot: pl.LazyFrame, file_metadata: Mapping[str, str]) -> Observation:
    """Look at what a snapshot says.

    A whole catalog without products was withheld, which says nothing about its products.
    """
    found = snapshot.select(
        pl.len().alias("rows"),
        pl.col("catalog_key").fill_null("").str.to_lowercase().unique().implode(),
        *(pl.col(name).is_not_null().any() for name in _MAY_BE_UNSENT),
    ).collect(engine="streaming")
    others = catalogs_without_products(file_metadata)
    catalogs = None if others is None else others.union(found.item(0, "catalog_key"))
    has_rows = found.item(0, "rows") > 0
    not_sent = (name for name in _MAY_BE_UNSENT if has_rows and not found.item(0, name))
    return Observation(catalogs, frozenset(not_sent))


def valid_at(moment: datetime) -> pl.Expr:
    """The rows whose values lasted at a moment."""
    is_over = pl.col("valid_to") <= moment
    return (pl.col("valid_from") <= moment) & ~is_over.fill_null(value=False)


def as_of_time(history: pl.LazyFrame, moment: datetime, observed: Observed) -> pl.LazyFrame:
    """Return the rows that were valid at a moment, as the snapshot of that time has them.

    A column that it has not, since the service did not send it, is null.
    """
    # What the last snapshot of each catalog lacks, and that of the catalogs without one.
    lacking: dict[str, frozenset[str]] = {}
    others: frozenset[str] = frozenset()
    for at in sorted((at for at in observed if at <= moment), reverse=True):
        catalogs, not_sent = observed[at]
        if catalogs is None:
            others = not_sent
            break
        for catalog in catalogs:
            lacking.setdefault(catalog, not_sent)
    key = pl.col("catalog_key").fill_null("").str.to_lowercase()

    def sent(name: str) -> pl.Expr:
        is_lacking = key.is_in(sorted(each for each in lacking if name in lacking[each]))
        if name in others:
            is_lacking |= ~key.is_in(sorted(lacking))
        return pl.when(~is_lacking).then(name).alias(name)

    columns = others.union(*lacking.values())
    return history.filter(valid_at(moment)).with_columns(map(sent, sorted(columns)))


def put_in(
    history: pl.LazyFrame, snapshot: pl.LazyFrame, at: datetime, observed: Observed
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a history with a snapshot put in, sorted by uuid.

    `observed` has what is in the history, and the snapshot at `at`. Each product's values are
    compared by a hash first; only those that differ are computed anew.
    """
    observation = observed[at]
    covered = history.filter(valid_at(at) & observation.is_covered)
    differing = _differing(covered, snapshot, at, observation.not_sent)
    unsent = [pl.lit(None, PRODUCT_SCHEMA[name]).alias(name) for name in observation.not_sent]
    products = snapshot.select(*_PRODUCT_COLUMNS).with_columns(unsent)
    yield from _rewritten(history, products, differing, at, observed)


def _differing(
    rows: pl.LazyFrame, snapshot: pl.LazyFrame, at: datetime, not_sent: Collection[str]
) -> pl.Series:
    """The keys of the products that differ between rows and a snapshot, or are in one only."""
    compared = [name for name in TRACKED if name not in not_sent]
    hashed = [_KEY.alias("key"), pl.struct("product_url", *compared).hash().alias("values")]
    new = snapshot.select(hashed).collect(engine="streaming")
    if snapshot.select(pl.col("uuid").is_null().any()).collect(engine="streaming").item():
        raise OctogenSnapshotError(
            f"The snapshot of {at:%Y-%m-%d %H:%M} UTC has a product without a uuid, so it has no "
            "place in a history. Give each product a uuid, or leave it out, before you store it."
        )
    if new["key"].n_unique() < len(new):
        raise OctogenSnapshotError(
            f"The snapshot of {at:%Y-%m-%d %H:%M} UTC has a product more than once, so it has no "
            "place in a history. Remove repeats by catalog_key and uuid before you store it."
        )
    old = rows.select(hashed).collect(engine="streaming")
    both = new.lazy().join(old.lazy(), on="key", how="full", coalesce=True, suffix="_old")
    differs = pl.col("values").ne_missing(pl.col("values_old"))
    return both.filter(differs).select("key").collect(engine="streaming").to_series()


def take_out(history: pl.LazyFrame, at: datetime, observed: Observed) -> Iterator[pl.DataFrame]:
    """Yield the rows of a history with the snapshot at `at` taken out, sorted by uuid.

    `observed` has what is in the history.
    """
    remaining = {time: each for time, each in observed.items() if time != at}
    touched = pl.any_horizontal(pl.col("valid_from", "valid_to") == at)
    if any(each.not_sent for each in observed.values()):
        touched = pl.lit(True)  # its values may be known elsewhere only because of this snapshot
    rows = history.filter(touched & observed[at].is_covered)
    differing = rows.select(_KEY.unique()).collect(engine="streaming").to_series()
    yield from _rewritten(history, None, differing, at, remaining)


def _rewritten(
    history: pl.LazyFrame,
    products: pl.LazyFrame | None,
    differing: pl.Series,
    at: datetime,
    observed: Observed,
) -> Iterator[pl.DataFrame]:
    """Yield a history in which the differing products had these values at a time.

    Without products, what was said of them at that time is forgotten.
    """
    is_differing = _KEY.is_in(differing.implode())
    rewrite = functools.partial(_lasting, at=at, observed=observed, forgets=products is None)
    for is_within in _ranges(products, is_differing, len(differing)):
        old = pl.DataFrame(schema=HISTORY_SCHEMA)
        new = pl.DataFrame(schema=_PRODUCT_COLUMNS)
        if products is not None:
            rows = products.filter(is_within & is_differing)
            new = rows.sort("uuid").collect(engine="streaming")
        batches = history.filter(is_within).collect_batches(
            chunk_size=_BATCH_ROWS, maintain_order=True, engine="streaming"
        )
        for batch in batches:
            if batch.is_empty():
                continue
            differs = batch.select(is_differing).to_series()
            old = old.vstack(batch.filter(differs))
            # The rows of the last product may go on in the next batch.
            is_whole = pl.col("uuid") < batch.item(-1, "uuid")
            rewritten = rewrite(old.filter(is_whole), new.filter(is_whole))
            old, new = old.filter(~is_whole), new.filter(~is_whole)
            # Half the CPU time of merging sorted frames.
            merged = pl.concat([batch.filter(~differs), rewritten])
            yield merged.sort("uuid", maintain_order=True)
        yield rewrite(old, new)


def _ranges(products: pl.LazyFrame | None, is_differing: pl.Expr, number: int) -> Iterable[pl.Expr]:
    """Ranges of uuids, in each of which some 200,000 products or fewer differ."""
    parts = math.ceil(number / _PRODUCTS_AT_ONCE)
    if parts < 2 or products is None:
        return [pl.lit(True)]
    uuid = pl.col("uuid")
    sample = products.filter(is_differing).select(uuid.gather_every(_SAMPLED))
    uuids = sample.collect(engine="streaming").to_series().sort()
    step = math.ceil(len(uuids) / parts) or 1
    cuts = uuids.gather_every(step, offset=step).unique(maintain_order=True)
    below = [*(uuid < cut for cut in cuts), pl.lit(True)]
    above = [pl.lit(True), *(uuid >= cut for cut in cuts)]
    return [low & high for low, high in zip(above, below, strict=True)]


def _lasting(
    old: pl.DataFrame, new: pl.DataFrame, at: datetime, observed: Observed, *, forgets: bool
) -> pl.DataFrame:
    """Compute the rows of products from all their rows and their values at a time.

    If it forgets, the values before that time last on.
    """
    if old.is_empty() and new.is_empty():
        return old
    catalogs = pl.concat([old["catalog_key"], new["catalog_key"]]).unique()
    later = [
        [time for time in observed if time > at and observed[time].covers(catalog)]
        for catalog in catalogs
    ]
    ends = pl.Series("until", [min(times, default=None) for times in later], _TIME)
    until = pl.DataFrame([catalogs, ends])
    old, new = (each.join(until, on="catalog_key", nulls_equal=True) for each in (old, new))
    start, end, moment = pl.col("valid_from"), pl.col("valid_to"), pl.lit(at, _TIME)
    before = old.filter(start < moment).with_columns(valid_to=pl.min_horizontal(end, moment))
    after = old.filter((end > pl.col("until")).fill_null(pl.col("until").is_not_null()))
    after = after.with_columns(valid_from=pl.max_horizontal(start, "until"))
    then = before.filter(end == moment) if forgets else new
    then = then.with_columns(valid_from=moment, valid_to="until")
    columns = [*_PRODUCT_COLUMNS, "valid_from", "valid_to"]
    rows = pl.concat([each.select(columns) for each in (before, then, after)])
    if any(each.not_sent for each in observed.values()):
        rows = _filled(rows, catalogs, observed)
    return _described(rows.sort("uuid", "catalog_key", "valid_from"))


def _filled(rows: pl.DataFrame, catalogs: pl.Series, observed: Observed) -> pl.DataFrame:
    """Fill in the values that were not sent.

    A value is taken to last from when it was last sent, and otherwise to have been what was sent
    first afterwards, as long as the product was there without a gap.
    """
    start, end = pl.col("valid_from"), pl.col("valid_to")
    spans = pl.concat([_spans(catalog, observed) for catalog in catalogs])
    overlaps = (pl.col("begins") < end).fill_null(value=True)
    overlaps &= (pl.col("ends") > start).fill_null(value=True)
    split = (
        rows.join(spans, on="catalog_key", nulls_equal=True)
        .filter(overlaps)
        .with_columns(
            valid_from=pl.max_horizontal(start, "begins"),
            valid_to=pl.min_horizontal(end, "ends"),
        )
        .sort("uuid", "catalog_key", "valid_from")
        .with_columns((~_goes_on()).cum_sum().alias("run"))
    )
    filled = []
    for name in _MAY_BE_UNSENT:
        # In a struct, so that a null that was sent is a value too.
        sent = pl.when(~pl.col("not_sent").list.contains(name)).then(pl.struct(name))
        filled.append(sent.forward_fill().backward_fill().over("run").struct.field(name))
    return split.with_columns(filled).select(rows.columns)


def _spans(catalog: str | None, observed: Observed) -> pl.DataFrame:
    """The times between which the snapshots of a catalog lack the same columns."""
    begins: list[datetime] = []
    lacks: list[list[str]] = []
    for at, observation in sorted(observed.items()):
        not_sent = sorted(observation.not_sent)
        if observation.covers(catalog) and (not lacks or not_sent != lacks[-1]):
            begins.append(at)
            lacks.append(not_sent)
    ends = [*begins[1:], None][: len(begins)]
    return pl.DataFrame(
        {"catalog_key": [catalog] * len(begins), "begins": begins, "ends": ends, "not_sent": lacks},
        schema={
            "catalog_key": pl.String,
            "begins": _TIME,
            "ends": _TIME,
            "not_sent": pl.List(pl.String),
        },
    )


def _is_same_product() -> pl.Expr:
    """True if a row is of the same product as the one before it."""
    return pl.all_horizontal(pl.col(_PRODUCT).eq_missing(pl.col(_PRODUCT).shift()))


def _goes_on() -> pl.Expr:
    """True if a row begins when the one before it ends, of the same product."""
    return _is_same_product() & (pl.col("valid_from") == pl.col("valid_to").shift())


def _described(rows: pl.DataFrame) -> pl.DataFrame:
    """Merge equal rows that go on, and say what happened at the beginning of each.

    The rows are sorted by product and time.
    """
    differs = {
        kind: pl.any_horizontal(pl.col(names).ne_missing(pl.col(names).shift()))
        for kind, names in WATCHED.items()
    }
    changed = pl.concat_list(
        pl.when(differs[kind]).then(pl.lit(kind)) for kind in WATCHED
    ).list.drop_nulls()
    goes_on = _goes_on()
    change = (
        pl.when(goes_on)
        .then(pl.lit("changed"))
        .when(_is_same_product())
        .then(pl.lit("reappeared"))
        .otherwise(pl.lit("appeared"))
    )
    begins = ~goes_on | pl.any_horizontal(differs.values())
    return (
        rows.with_columns(
            pl.col("product_url").last().over(_PRODUCT),
            change.cast(HISTORY_SCHEMA["change"]).alias("change"),
            pl.when(goes_on).then(changed).alias("changed"),
            begins.alias("begins"),
        )
        .with_columns(pl.col("valid_to").last().over(pl.col("begins").cum_sum()))
        .filter("begins")
        .with_columns(pl.col("valid_to").is_null().alias("is_current"))
        .select(HISTORY_SCHEMA.names())
    )


def history_metrics(history: pl.LazyFrame, at: datetime | None) -> Metrics:
    """Return what happened in the last snapshot of a history, at a time, and its median prices.

    The prices are of the five currencies with the most products. What is no code of a currency
    would be any text in the name of a figure, and is left out.
    """
    last = pl.lit(at, _TIME)  # null if there is none
    begins, price = pl.col("valid_from") == last, pl.col("current_price")
    happened = {name: (begins & (pl.col("change") == name)).sum() for name in _CHANGES}
    gone = (pl.col("valid_to") == last).sum() - happened["changed"]
    current = pl.col("is_current").sum()
    counted = history.select(**happened, disappeared=gone, current_products=current)
    priced = (
        history.filter("is_current", price.is_finite())
        .group_by(pl.col("currency").str.to_lowercase())
        .agg(price.median().alias("median"), pl.len())
        .filter(pl.col("currency").str.contains("^[a-z]{3}$").fill_null(value=True))
    )
    counts, medians = pl.collect_all([counted, priced], engine="streaming")
    metrics: Metrics = {name: int(count) for name, count in counts.row(0, named=True).items()}
    largest = medians.sort("len", "currency", descending=[True, False]).head(_MAX_CURRENCIES)
    for currency, median, _ in largest.iter_rows():
        metrics[f"median_price_{currency or 'no_currency'}"] = round(median, 4)
    return metrics


def price_drops(history: pl.LazyFrame, at: datetime) -> pl.DataFrame:
    """Return the ten products whose price fell by the largest share in the snapshot at a time."""
    columns = [*_PRODUCT, "current_price", "currency"]
    fell = (pl.col("valid_from") == at) & pl.col("changed").list.contains("price")
    new = history.filter(fell).select(*columns, "title", "product_url")
    old = history.filter(pl.col("valid_to") == at).select(columns)
    pairs = new.join(old, on=[*_PRODUCT, "currency"], suffix="_old", nulls_equal=True)
    share = 1 - pl.col("current_price") / pl.col("current_price_old")
    prices = [pl.col(name).round(2) for name in ("current_price_old", "current_price")]
    price = pl.format("{} → {} {}", *prices, pl.col("currency").fill_null(""))
    return (
        pairs.filter(share > 0)
        .sort(share, "uuid", descending=[True, False])
        .head(_MAX_DROPS)
        .select(
            "title",
            price.str.strip_chars_end().alias("old → new"),
            pl.format("-{} %", (share * 100).round(0).cast(pl.Int64)).alias("change"),
            pl.col("product_url").alias("product"),
        )
        .collect(engine="streaming")
    )
