"""Checks for tables with product columns: row count, nulls and prices."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

from octogen_dagster.checks.checked_snapshot import CheckedSnapshot
from octogen_dagster.frames.kinds import Check, Rule, Verdict
from octogen_dagster.printable import count
from octogen_dagster.validation import require_percent, warn_of_share

MIN_PRICES = 10
"""The minimum number of prices needed to detect outliers."""
MIN_ROWS_CHANGE = 10
"""A change of up to this many rows always passes, because search results vary slightly."""
SNAPSHOTS_BACK = 5
"""The number of earlier snapshots to compare with."""
_MOSTLY_NULL = 0.5
"""A column is expected to have values unless its median null share exceeds this value."""

ROWS, NULLS, PRICES = "rows_within_bounds", "nulls", "prices"


@dataclass(frozen=True)
class ProductLimits:
    """Limits for the product checks, as documented in `build_snapshot_checks`."""

    max_rows_change_percent: float | None
    max_null_percent: Mapping[str, float] | None
    max_bad_price_percent: float | None
    price_outlier_ratio: float

    def __post_init__(self) -> None:
        limits, max_rows_change_percent = self.max_null_percent, self.max_rows_change_percent
        if not isinstance(limits, Mapping | None):
            raise TypeError(
                "max_null_percent must map column names to percentages, such as "
                f'{{"title": 20}}; got {limits!r}.'
            )
        percents = {f"max_null_percent[{name!r}]": at for name, at in (limits or {}).items()}
        percents["max_bad_price_percent"] = self.max_bad_price_percent or 0.0
        for name, percent in percents.items():
            require_percent(name, percent, 0.1 if name.startswith("max_bad") else 1)
        if max_rows_change_percent is not None and max_rows_change_percent < 0:
            raise ValueError(
                f"max_rows_change_percent must be at least 0; got {max_rows_change_percent:g}."
            )
        if 0 < (max_rows_change_percent or 0) < 1:
            warn_of_share("max_rows_change_percent", max_rows_change_percent or 0)
        if self.price_outlier_ratio <= 1:
            raise ValueError(
                f"price_outlier_ratio must be greater than 1; got {self.price_outlier_ratio}."
            )

    def checks(self, columns: Collection[str] | None) -> dict[str, Check]:
        """Return the enabled checks that apply to a table with these columns."""
        return {
            name: each.check
            for name, each in PRODUCT_CHECKS.items()
            if each.limit is None or getattr(self, each.limit) is not None
            if columns is None or {*each.needs} <= {*columns}
        }

    def rules(self, schema: pl.Schema) -> Iterator[Rule]:
        for each in PRODUCT_CHECKS.values():
            yield from each.rules(schema, self)

    def judge(self, check: str, snapshot: CheckedSnapshot) -> Verdict:
        judge = PRODUCT_CHECKS[check].judge
        return judge(snapshot, self) if judge else snapshot.by_rules(check)


class ProductCheck(NamedTuple):
    """A check for products.

    The asset must declare the columns in `needs`. If the setting named by `limit` is None, the
    check is disabled. If `judge` is None, `rules` determine the verdict.
    """

    check: Check
    needs: Collection[str]
    limit: str | None = None
    rules: Callable[[pl.Schema, ProductLimits], Iterable[Rule]] = lambda *_: ()
    judge: Callable[[CheckedSnapshot, ProductLimits], Verdict] | None = None


def _null_rules(schema: pl.Schema, limits: ProductLimits) -> Iterator[Rule]:
    for name, limit in (limits.max_null_percent or {}).items():
        value, dtype = pl.col(name), schema.get(name)
        if isinstance(dtype, pl.Struct) and "name" in dtype.to_schema():  # a brand without a name
            value = value.struct.field("name")
        bad = _without_nan(value, dtype).is_null()
        yield Rule(NULLS, f"{name} is null", bad, limit, (name,))


def _price_rules(schema: pl.Schema, limits: ProductLimits) -> Iterator[Rule]:
    limit, ratio = limits.max_bad_price_percent or 0.0, limits.price_outlier_ratio
    has_original = "original_price" in schema
    columns = ("current_price", *(["original_price"] if has_original else []), "currency")
    others = [
        name
        for name in columns[:-1]
        if name in schema and not (schema[name].is_numeric() or schema[name] == pl.Null)
    ]
    for name in others:
        bad = pl.col(name).is_not_null()
        yield Rule(PRICES, f"{name} is {schema[name]}, not a number,", bad, 0.0, columns)
    if others:
        return
    price = _without_nan(pl.col("current_price"), schema.get("current_price"))
    original = _without_nan(pl.col("original_price"), schema.get("original_price"))
    if not has_original:
        original = pl.lit(None, pl.Float64)
    currency = pl.col("currency")
    median, prices = price.median().over(currency), price.count().over(currency)
    # Products without a currency can have prices in several, so they have no meaningful median.
    has_median = currency.is_not_null() & (prices >= MIN_PRICES)
    is_far = (price > median * ratio) | ((price > 0) & (price < median / ratio))
    problems = {
        "a price is negative": (price < 0) | (original < 0),
        "current_price is zero": price == 0,
        "original_price is below current_price": original < price,
        "current_price is far from the median of its currency": is_far & has_median,
    }
    for name, bad in problems.items():
        yield Rule(PRICES, name, bad, limit, columns)


def _without_nan(value: pl.Expr, dtype: pl.DataType | None) -> pl.Expr:
    return value.fill_nan(None) if dtype is not None and dtype.is_float() else value


def _judge_rows(snapshot: CheckedSnapshot, limits: ProductLimits) -> Verdict:
    """Compare the row count with the row counts of earlier snapshots."""
    rows, max_percent = snapshot.rows, limits.max_rows_change_percent or 0.0
    counts = [
        entries.get("dagster/partition_row_count") or entries.get("dagster/row_count")
        for entries in snapshot.earlier
    ]
    earlier = [each for each in counts if each is not None][:SNAPSHOTS_BACK]
    if not earlier:
        text = (
            f"{snapshot.subject} has {count(rows, 'row')}. There is no earlier snapshot for "
            "comparison."
        )
        return Verdict(True, text)
    typical = statistics.median(earlier)
    change = max(max_percent * typical / 100, MIN_ROWS_CHANGE)
    low, high = max(0, typical - change), typical + change
    text = (
        f"{snapshot.subject} has {count(rows, 'row')}. The expected row count is {low:,.0f} to "
        f"{high:,.0f}, based on {count(len(earlier), 'earlier snapshot')}."
    )
    figures = {"rows_low": round(low), "rows_high": round(high), "earlier_rows": earlier}
    return Verdict(low <= rows <= high, text, figures)


def _judge_nulls(snapshot: CheckedSnapshot, limits: ProductLimits) -> Verdict:
    """Fail if a column exceeds its null limit, or if a column without a limit lost all values."""
    verdict, limited = snapshot.by_rules(NULLS), limits.max_null_percent or ()
    if snapshot.rows < MIN_ROWS_CHANGE or not (lost := _lost_columns(snapshot) - set(limited)):
        return verdict
    names = ", ".join(sorted(lost))
    text = (
        f"{verdict.text} All values are null in {names}. In most earlier snapshots, at least half "
        "of the rows had values."
    )
    return Verdict(False, text, {**verdict.figures, "lost_columns": names})


def _lost_columns(snapshot: CheckedSnapshot) -> set[str]:
    """Return the columns that had values in most earlier snapshots but are now entirely null."""
    current, *earlier = (
        (entries.get("octogen/metrics") or {}).get("null_fractions")
        for entries in (snapshot.entries, *snapshot.earlier)
    )
    known = [each for each in earlier if each is not None][:SNAPSHOTS_BACK]
    return {
        name
        for name, fraction in (current or {}).items()
        if fraction == 1 and known
        if statistics.median(each.get(name, 0.0) for each in known) <= _MOSTLY_NULL
    }


PRODUCT_CHECKS: Mapping[str, ProductCheck] = {
    ROWS: ProductCheck(
        Check(
            "The row count is close to the row counts of the latest snapshots.",
            "Review the product changes. If the new row count is correct, no action is needed: the "
            "check passes again after a few snapshots. To change the limit, set "
            "max_rows_change_percent.",
        ),
        needs=["title"],
        limit="max_rows_change_percent",
        judge=_judge_rows,
    ),
    NULLS: ProductCheck(
        Check(
            "Every column is within its null limit, and no column has lost all its values.",
            "Ask Octogen whether the values still exist. To change the limits, set "
            "max_null_percent.",
        ),
        needs=["title"],
        limit="max_null_percent",
        rules=_null_rules,
        judge=_judge_nulls,
    ),
    PRICES: ProductCheck(
        Check(
            "Few prices are negative, zero, above the original price or far from the median.",
            "Compare the sample with the shop's prices. If they differ, report the problem to "
            "Octogen. To change the limits, set max_bad_price_percent and price_outlier_ratio.",
        ),
        needs=["current_price", "currency"],
        limit="max_bad_price_percent",
        rules=_price_rules,
    ),
}
"""The checks for products, by name."""
