"""The checks of snapshots: a table of rules for rows, and the number of rows."""

import functools
import statistics
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import dagster as dg
import polars as pl

from octogen_dagster.asset_definition import (
    FRESH,
    Metadata,
    permanent_errors_fail,
    require_asset,
    require_max_age,
    takes_range,
)
from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.markdown import markdown_table
from octogen_dagster.frames.source import utc_now
from octogen_dagster.snapshots.alerts import alert_rules_of, build_alert_checks
from octogen_dagster.snapshots.failures import named
from octogen_dagster.snapshots.freshness import build_fresh_check
from octogen_dagster.snapshots.history_checks import (
    HISTORY_ADVICE,
    HISTORY_CHECKS,
    LEFT_OUT,
    LEFT_OUT_ADVICE,
    LEFT_OUT_DESCRIPTION,
    by_product,
    history_problems,
    is_history,
    judge_left_out,
)
from octogen_dagster.snapshots.loading import Snapshots, snapshot_input
from octogen_dagster.snapshots.metadata import declared_columns
from octogen_dagster.snapshots.partitions import PartitionLayout
from octogen_dagster.snapshots.publication import last_records, read_last
from octogen_dagster.snapshots.range_checks import PARTITION_CHECKS, partition_evaluations
from octogen_dagster.validation import did_you_mean, require_fraction

MAX_NULL_SHARE: Mapping[str, float] = {"product_url": 0.0, "title": 0.2, "current_price": 0.2}
"""The shares of nulls that are allowed by default."""
MIN_PRICES = 10
"""The smallest number of prices whose median says what an outlier is."""
MIN_ROWS_CHANGE = 10
"""A smaller change of the number of rows is none, so that a search may find a few more or less."""
SNAPSHOTS_BACK = 5
"""The number of earlier snapshots that one is compared with."""
_MOSTLY_NULL = 0.5
"""A column with more nulls in most of the earlier snapshots may lose the other values."""

_ROWS, _NULLS, _PRICES = "rows_within_bounds", "nulls", "prices"
_DESCRIPTIONS = {
    _ROWS: "The number of rows is near that of the last snapshots.",
    _NULLS: "No column has many nulls, and none has lost all of its values.",
    _PRICES: "Few prices are negative, zero, above the original one or far from the median.",
    **HISTORY_CHECKS,
    LEFT_OUT: LEFT_OUT_DESCRIPTION,
}
_NEEDED = {_ROWS: {"title"}, _NULLS: {"title"}, _PRICES: {"current_price", "currency"}}
"""The columns that an asset has for which a check makes sense; changes may be few or none."""
_ADVICE = {
    _ROWS: "Look at the changes of the products. If the number is right, the next snapshots are "
    "compared with it; max_rows_change sets the limit.",
    _NULLS: "Ask Octogen whether it still has these values; max_null_fraction sets the limits.",
    _PRICES: "Compare the sample with the shop, and tell Octogen if it is right there. "
    "max_bad_price_fraction and price_outlier_ratio set the limits.",
    **dict.fromkeys(HISTORY_CHECKS, HISTORY_ADVICE),
    LEFT_OUT: LEFT_OUT_ADVICE,
}
_SHOWN = ("catalog_key", "uuid", "product_url", "title")
_MAX_SAMPLE = 5
_ROW = "octogen/row"  # the name of no column, of an asset of one's own either
_MAX_RECORDS = 100


class Rule(NamedTuple):
    """Rows that are bad, of which a snapshot may have a share; `name` says what is bad."""

    check: str
    name: str
    bad: pl.Expr
    limit: float
    columns: tuple[str, ...]


def build_snapshot_checks(
    asset: dg.AssetsDefinition,
    *,
    max_age: timedelta | None = timedelta(days=2),
    max_rows_change: float | None = 0.3,
    max_null_fraction: Mapping[str, float] | None = MAX_NULL_SHARE,
    max_bad_price_fraction: float | None = 0.001,
    price_outlier_ratio: float = 100.0,
    exclude: Collection[str] = (),
    blocking: bool = False,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    _clock: Callable[[], datetime] = utc_now,
) -> list[dg.AssetChecksDefinition]:
    """Build the checks of the snapshots of an asset.

    They run with each materialization, on its partition, also in a run of several. The snapshot
    comes from the asset's IO manager as a `polars.LazyFrame`, and one pass over the columns that
    they need answers them all:

    * `rows_within_bounds`: the number of rows is near the median of the last five snapshots;
    * `nulls`: no column has many nulls, and none that `OctogenResource` read is all null that had
      values in most rows of the last snapshots;
    * `prices`: few prices are negative, zero, above the original price or far from the median of
      their currency. Products without a currency have no median;
    * `fresh`: every catalog was materialized lately. It looks at all partitions, reads no snapshot
      and never blocks. It also runs every hour where the automation condition sensor is on. A
      catalog that the source no longer lists is named, and does not fail it; nor does one without a
      snapshot until the asset's first one is older than `max_age`, so that a first backfill may
      last.

    The last snapshots are those of the last of the 31 times before, or else those that were
    replaced; one of another search, as a run in the launchpad may have, does not count. Without one
    `rows_within_bounds` passes. A failed check has a sample of the rows and says what to do.
    Changes and brands have `fresh` only. A history has `fresh`, and checks of its own of the rows
    of each product: `one_current_row`, `no_overlap` and `no_gap`; `nothing_left_out` names the
    snapshots that have no place in it. Alerts have `fresh`, and a check for each rule, which warns
    if more products than its `max_products` and `max_percent` met it in the last snapshot. That a
    snapshot is complete and has each product once needs no check: the read fails otherwise.

    Args:
        asset: An asset of products, of their details, changes or history; or one of your own with
            these columns. If its metadata has `dagster/column_schema`, the columns there say which
            checks it has; else it has all.
        max_age: The maximum age of each catalog's last materialization; None leaves `fresh` out.
        max_rows_change: Share by which the number of rows may differ from that of the last
            snapshots, where it may always differ by ten; None leaves `rows_within_bounds` out.
        max_null_fraction: The largest fraction of nulls of columns by name, 0 to 1; None leaves
            `nulls` out. The default leaves out columns that the asset does not declare. One that is
            named here is not compared with the last snapshots: with 1 it may lose all values.
        max_bad_price_fraction: Fraction of the products whose price may be bad in one of these
            ways, 0 to 1; None leaves `prices` out.
        price_outlier_ratio: How many times a price may be above or below the median.
        exclude: Names of checks to leave out.
        blocking: True to keep what is downstream in the same run from running after a failed check.
        severity: The severity of a failed check.

    Returns:
        Checks for `dagster.Definitions(asset_checks=...)`.

    Raises:
        ValueError: The asset is several assets, or its partitions are of two dimensions that are
            not a catalog and a time; a limit is out of its range; `max_null_fraction` names a
            column that the asset does not declare; `exclude` has the name of no check; or checks
            are to block that only warn.
    """
    require_asset(asset, "asset")
    require_max_age(max_age)
    columns, of_alerts = declared_columns(asset), alert_rules_of(asset)
    if max_null_fraction is MAX_NULL_SHARE and columns is not None:
        max_null_fraction = {name: MAX_NULL_SHARE[name] for name in columns & MAX_NULL_SHARE.keys()}
    _check_limits(max_rows_change, max_null_fraction, max_bad_price_fraction, price_outlier_ratio)
    _check_names(exclude, of_alerts)
    if blocking and severity is dg.AssetCheckSeverity.WARN:
        raise ValueError(
            "blocking=True needs severity=dg.AssetCheckSeverity.ERROR: Dagster lets what is "
            "downstream run after a warning."
        )
    limits = {_ROWS: max_rows_change, _NULLS: max_null_fraction, _PRICES: max_bad_price_fraction}
    names = [
        name
        for name, limit in limits.items()
        if limit is not None and (columns is None or _NEEDED[name].issubset(columns))
    ]
    of_history = is_history(columns)
    if of_history:
        names = [*HISTORY_CHECKS, LEFT_OUT]
    if of_alerts:
        names = []
    names = [name for name in names if name not in exclude]
    if _NULLS in names and columns is not None:
        for name in {*(max_null_fraction or ())} - columns:
            raise ValueError(
                f"max_null_fraction names {name!r}, which {asset.key.to_user_string()} does not "
                f"have.{did_you_mean(name, columns)} It has {', '.join(sorted(columns))}."
            )

    def rules(schema: pl.Schema) -> Iterator[Rule]:
        if of_history:
            for check, name, bad, needed in history_problems():
                yield Rule(check, name, bad, 0.0, needed)
            return
        yield from _null_rules(schema, max_null_fraction or {})
        yield from _price_rules(schema, max_bad_price_fraction or 0.0, price_outlier_ratio)

    checks = []
    if rules_of_alerts := [name for name in of_alerts if name not in exclude]:
        checks.append(build_alert_checks(asset, rules_of_alerts))
    if names:
        rows = _RowsChecks(
            asset.key,
            PartitionLayout(asset.partitions_def),
            names,
            rules,
            max_rows_change or 0.0,
            severity,
            blocking,
            by_product if of_history else None,
        )
        checks.append(_rows_checks(asset, rows))
    if max_age is not None and FRESH not in exclude:
        checks.append(build_fresh_check(asset, max_age, severity, _clock))
    return checks


def _check_limits(
    max_rows_change: float | None,
    max_null_fraction: Mapping[str, float] | None,
    max_bad_price_fraction: float | None,
    price_outlier_ratio: float,
) -> None:
    if not isinstance(max_null_fraction, Mapping | None):
        raise TypeError(
            "max_null_fraction must be a mapping of names of columns, such as "
            f'{{"title": 0.2}}, not {max_null_fraction!r}.'
        )
    shares = {f"max_null_fraction[{name!r}]": at for name, at in (max_null_fraction or {}).items()}
    for name, share in {**shares, "max_bad_price_fraction": max_bad_price_fraction or 0.0}.items():
        require_fraction(name, share)
    if max_rows_change is not None and max_rows_change < 0:
        raise ValueError(
            f"max_rows_change must be a fraction of at least 0 (0.3 is 30 %), not {max_rows_change}"
        )
    if price_outlier_ratio <= 1:
        raise ValueError(f"price_outlier_ratio must be above 1, not {price_outlier_ratio}")


def _check_names(exclude: Collection[str], of_alerts: Collection[str]) -> None:
    known = [*of_alerts, *_DESCRIPTIONS, FRESH]
    for name in [exclude] if isinstance(exclude, str) else exclude:
        if name not in known:
            raise ValueError(
                f"exclude names {name!r}, and there is no such check.{did_you_mean(name, known)} "
                f"The checks are {', '.join(known)}."
            )


def _null_rules(schema: pl.Schema, limits: Mapping[str, float]) -> Iterator[Rule]:
    for name, limit in limits.items():
        value, dtype = pl.col(name), schema.get(name)
        if isinstance(dtype, pl.Struct) and "name" in dtype.to_schema():  # a brand without a name
            value = value.struct.field("name")
        bad = _without_nan(value, dtype).is_null()
        yield Rule(_NULLS, f"{name} is null", bad, limit, (name,))


def _price_rules(schema: pl.Schema, limit: float, ratio: float) -> Iterator[Rule]:
    has_original = "original_price" in schema
    columns = ("current_price", *(["original_price"] if has_original else []), "currency")
    others = [
        name
        for name in columns[:-1]
        if name in schema and not (schema[name].is_numeric() or schema[name] == pl.Null)
    ]
    for name in others:
        bad = pl.col(name).is_not_null()
        yield Rule(_PRICES, f"{name} is {schema[name]}, not a number,", bad, 0.0, columns)
    if others:
        return
    price = _without_nan(pl.col("current_price"), schema.get("current_price"))
    original = _without_nan(pl.col("original_price"), schema.get("original_price"))
    if not has_original:
        original = pl.lit(None, pl.Float64)
    currency = pl.col("currency")
    median, prices = price.median().over(currency), price.count().over(currency)
    # Products without a currency may be priced in several, so their median says nothing.
    has_median = currency.is_not_null() & (prices >= MIN_PRICES)
    is_far = (price > median * ratio) | ((price > 0) & (price < median / ratio))
    problems = {
        "a price is negative": (price < 0) | (original < 0),
        "current_price is zero": price == 0,
        "original_price is below current_price": original < price,
        "current_price is far from the median of its currency": is_far & has_median,
    }
    for name, bad in problems.items():
        yield Rule(_PRICES, name, bad, limit, columns)


def _without_nan(value: pl.Expr, dtype: pl.DataType | None) -> pl.Expr:
    return value.fill_nan(None) if dtype is not None and dtype.is_float() else value


def _rows_checks(asset: dg.AssetsDefinition, rows: "_RowsChecks") -> dg.AssetChecksDefinition:
    """Build one step that opens the snapshot and answers all checks of its rows."""
    key, has_range = asset.key, takes_range(asset.backfill_policy, asset.partitions_def)
    with warnings.catch_warnings():
        # Without the partitions Dagster loads those of all runs, not that of the run.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        specs = [
            dg.AssetCheckSpec(
                name,
                asset=key,
                description=_DESCRIPTIONS[name],
                blocking=rows.blocking,
                partitions_def=asset.partitions_def,
            )
            for name in rows.names
        ]

    def snapshot_checks(
        context: dg.AssetCheckExecutionContext, snapshot: Snapshots
    ) -> Iterator[dg.AssetCheckResult | dg.AssetCheckEvaluation]:
        op = context.op_execution_context
        selected = [each.name for each in op.selected_asset_check_keys]
        if has_range and not op.has_partition_key:
            missing = []
            for partition in snapshot.partitions:
                try:
                    frame = snapshot.frame(partition)
                except OctogenSnapshotError as error:
                    missing.append(f"{partition!r}: {error}")
                    continue
                found = rows.results(context.instance, frame, partition, selected)
                yield from partition_evaluations(context.instance, key, partition, found)
            if missing:
                raise dg.Failure(
                    "\n".join(
                        [
                            f"The checks of {len(missing):,} of {len(snapshot.partitions):,} "
                            f"partitions of {key.to_user_string()} could not be evaluated.",
                            *named(missing),
                        ]
                    )
                )
            return
        own = op.partition_key if op.has_partition_key else None
        with permanent_errors_fail():
            frame = snapshot.frame(own)
        yield from rows.results(context.instance, frame, own, selected)

    checks = dg.multi_asset_check(
        name=f"{key.to_python_identifier()}_checks",
        specs=specs,
        can_subset=True,
        **snapshot_input("snapshot", asset),
    )(snapshot_checks)
    PARTITION_CHECKS[checks.node_def] = rows.results
    return checks


@dataclass(frozen=True)
class _RowsChecks:
    """The checks of the rows of an asset's snapshots."""

    asset: dg.AssetKey
    partitions: PartitionLayout
    names: Collection[str]
    rules: Callable[[pl.Schema], Iterable[Rule]]
    max_rows_change: float
    severity: dg.AssetCheckSeverity
    blocking: bool
    in_order: Callable[[pl.LazyFrame], pl.LazyFrame] | None = None

    def results(
        self,
        instance: dg.DagsterInstance,
        snapshot: pl.LazyFrame,
        partition: str | None,
        selected: Collection[str],
    ) -> Iterator[dg.AssetCheckResult]:
        """The results of the selected checks of a snapshot."""
        of = f", partition {partition!r}" if partition else ""
        subject = f"{self.asset.to_user_string()}{of}"
        chosen = [rule for rule in self.rules(snapshot.collect_schema()) if rule.check in selected]
        measured = _Measured(self.in_order(snapshot) if self.in_order else snapshot, chosen)
        last = functools.cache(
            lambda: _last_records(instance, self.asset, partition, self.partitions)
        )
        for name in self.names:
            if name not in selected:
                continue
            if name == _ROWS:
                counts = _row_counts(last()[1:])
                passed, text, metadata = _judge_count(measured.rows, counts, self.max_rows_change)
            elif name == LEFT_OUT:
                passed, text = judge_left_out(instance, self.asset, partition)
                metadata = {}
            else:
                passed, text, metadata = measured.judge(name)
            if name == _NULLS and measured.rows >= MIN_ROWS_CHANGE:
                limited = {
                    column for rule in chosen if rule.check == name for column in rule.columns
                }
                if lost := ", ".join(sorted(_lost_columns(last()) - limited)):
                    passed, metadata["octogen/lost_columns"] = False, lost
                    text += (
                        f" All rows are null in {lost}, where most of the last snapshots had "
                        "values in at least half of their rows."
                    )
            yield dg.AssetCheckResult(
                passed=passed,
                check_name=name,
                severity=self.severity,
                description=f"{subject} {text}" + ("" if passed else f" {_ADVICE[name]}"),
                metadata={"octogen/rows": measured.rows, **metadata},
            )


class _Measured:
    """A snapshot with the numbers of its bad rows, found by one pass over the columns needed."""

    def __init__(self, snapshot: pl.LazyFrame, rules: Iterable[Rule]) -> None:
        self._snapshot = snapshot
        self._columns = snapshot.collect_schema().names()
        self._rules = list(rules)
        usable = [rule for rule in self._rules if set(rule.columns).issubset(self._columns)]
        found = snapshot.select(
            pl.len().alias("rows"),
            *(rule.bad.arg_true().implode().alias(rule.name) for rule in usable),
        ).collect(engine="streaming")
        self.rows: int = found.item(0, "rows")
        self._bad = {rule.name: found.item(0, rule.name) for rule in usable}

    def judge(self, check: str) -> tuple[bool, str, Metadata]:
        """Return whether a check passes, the finding as text, and the numbers."""
        rules = [rule for rule in self._rules if rule.check == check]
        needed = dict.fromkeys(name for rule in rules for name in rule.columns)
        if missing := [name for name in needed if name not in self._columns]:
            text = f"has no column {', '.join(missing)}. Store it, or exclude the check {check!r}."
            return False, text, {}
        bad = {rule.name: len(self._bad[rule.name]) for rule in rules}
        broken = [rule for rule in rules if bad[rule.name] > rule.limit * self.rows]
        metadata: Metadata = {
            "octogen/bad_rows": sum(bad.values()),
            "octogen/bad_rows_by_rule": dg.MetadataValue.json(bad),
        }
        if not broken:
            return True, f"has {self.rows:,} rows, and few or none are bad.", metadata
        found = "; ".join(
            f"{rule.name} in {bad[rule.name]:,} of {self.rows:,} rows "
            f"({100 * bad[rule.name] / self.rows:.3g} %), "
            + (f"{100 * rule.limit:.3g} % are allowed" if rule.limit else "and none is allowed")
            for rule in broken
        )
        metadata["octogen/sample"] = dg.MetadataValue.md(markdown_table(self._sample(broken)))
        return False, f"has bad rows: {found}.", metadata

    def _sample(self, rules: Iterable[Rule]) -> pl.DataFrame:
        """The first bad rows of each rule."""
        needed = [name for rule in rules for name in rule.columns]
        shown = dict.fromkeys([*(name for name in _SHOWN if name in self._columns), *needed])
        first = [
            pl.DataFrame({_ROW: self._bad[rule.name].head(_MAX_SAMPLE), "problem": rule.name})
            for rule in rules
        ]
        bad = pl.concat(first)
        numbered = self._snapshot.with_row_index(_ROW).select(_ROW, *shown)
        rows = numbered.filter(pl.col(_ROW).is_in(bad[_ROW].implode()))
        sample = bad.join(rows.collect(engine="streaming"), on=_ROW, maintain_order="left")
        return sample.drop(_ROW)


def _judge_count(rows: int, earlier: list[int], max_change: float) -> tuple[bool, str, Metadata]:
    """Return whether a number of rows is near those of the last snapshots, a text and numbers."""
    if not earlier:
        return True, f"has {rows:,} rows; those of an earlier snapshot are not known.", {}
    typical = statistics.median(earlier)
    change = max(max_change * typical, MIN_ROWS_CHANGE)
    low, high = max(0, typical - change), typical + change
    text = (
        f"has {rows:,} rows; {low:,.0f} to {high:,.0f} are expected after the last {len(earlier)} "
        "snapshots."
    )
    metadata: Metadata = {
        "octogen/rows_low": round(low),
        "octogen/rows_high": round(high),
        "octogen/earlier_rows": dg.MetadataValue.json(earlier),
    }
    return low <= rows <= high, text, metadata


def _last_records(
    instance: dg.DagsterInstance,
    asset: dg.AssetKey,
    partition: str | None,
    partitions: PartitionLayout,
) -> list[dg.EventLogRecord]:
    """The materialization of a snapshot, then those of the ones before it, the newest first.

    These are of the same search. A snapshot with a time comes after those of earlier times, another
    one after those it replaced. A run of several partitions is compared with nothing.
    """
    if partition is None and (partitions.catalogs or partitions.times):
        return []
    records = read_last(instance, asset, partition, _MAX_RECORDS)
    if not records:  # a snapshot whose materialization was wiped: its search is not known
        return []
    own, *earlier = records
    if partition and partitions.times:
        times = [str(key) for key in partitions.times_before(partition)]
        found = last_records(instance, asset, times)
        earlier = [found[key] for key in times if key in found]
    return [own, *(record for record in earlier if _search(record) == _search(own))]


def _row_counts(records: Iterable[dg.EventLogRecord]) -> list[int]:
    """The numbers of rows of the first five snapshots whose number is known."""
    counts = [
        _metadata(record, "dagster/partition_row_count") or _metadata(record, "dagster/row_count")
        for record in records
    ]
    return [count for count in counts if count is not None][:SNAPSHOTS_BACK]


def _lost_columns(records: Iterable[dg.EventLogRecord]) -> set[str]:
    """The columns that are all null in the first snapshot, and mostly were not in the next five."""
    metrics = [_metadata(record, "octogen/metrics") or {} for record in records]
    own, *earlier = [each.get("null_fractions") for each in metrics] or [None]
    known = [each for each in earlier if each is not None][:SNAPSHOTS_BACK]
    return {
        name
        for name, fraction in (own or {}).items()
        if fraction == 1 and known
        if statistics.median(each.get(name, 0.0) for each in known) <= _MOSTLY_NULL
    }


def _search(record: dg.EventLogRecord) -> Any:
    """The search of a snapshot, without the size of its pages, which changes nothing it finds."""
    search = _metadata(record, "octogen/search")
    return {**search, "page_size": None} if isinstance(search, Mapping) else None


def _metadata(record: dg.EventLogRecord, name: str) -> Any:
    event = record.asset_materialization
    entry = event.metadata.get(name) if event else None
    return None if entry is None else entry.value
