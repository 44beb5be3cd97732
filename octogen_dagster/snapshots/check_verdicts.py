"""What each check says of a snapshot, as a pure function of its rows and its history."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from octogen_dagster.dagster_parts import Metadata, markdown_table, not_empty_result

if TYPE_CHECKING:
    from octogen_dagster.frames.quality import ProductQuality
    from octogen_dagster.snapshots.check_history import SnapshotHistory


NULLS = "nulls"
SCHEMA_UNCHANGED = "schema_unchanged"
COMPARED = (NULLS, SCHEMA_UNCHANGED)
"""The checks that compare a snapshot with what they stored of the last one."""
_NULL_SHARES = "octogen/null_shares"
_TYPES = "octogen/types"

MIN_ROWS_CHANGE = 10
"""A smaller change of the number of rows is none, so that a search may find a few more or less."""


@dataclass(frozen=True)
class CheckLimits:
    """The limits of the checks, as for `build_snapshot_checks`; None where a check is left out."""

    max_missing_share: float | None = 0.05
    max_rows_change: float | None = 0.3
    max_null_share: Mapping[str, float] | None = field(default_factory=dict)
    max_null_growth: float | None = 0.2
    max_bad_price_share: float | None = 0.001


@dataclass(frozen=True)
class CheckedSnapshot:
    """A snapshot with all that its checks need.

    Attributes:
        subject: How messages name it, such as "products, partition 'acme'".
        quality: Measures of its rows.
        history: Its materialization and those before it.
        limits: The limits of the checks.
    """

    subject: str
    quality: ProductQuality
    history: SnapshotHistory
    limits: CheckLimits


@dataclass(frozen=True)
class Verdict:
    """What a check says.

    Attributes:
        passed: True if nothing is wrong.
        text: What was found.
        numbers: The numbers behind it, as metadata.
        advice: What to do if something is wrong.
        sample: Returns the table to show if something is wrong.
        warns: True if what is wrong is only warned of, whatever the severity.
    """

    passed: bool
    text: str
    numbers: Metadata = field(default_factory=dict)
    advice: str = ""
    sample: Callable[[], pl.DataFrame] | None = None
    warns: bool = False

    def result(self, check: str, severity: dg.AssetCheckSeverity) -> dg.AssetCheckResult:
        """The result of a check.

        Args:
            check: The name of the check.
            severity: The severity if it failed.
        """
        metadata = dict(self.numbers)
        if not self.passed and self.sample:
            metadata["octogen/sample"] = dg.MetadataValue.md(markdown_table(self.sample()))
        return dg.AssetCheckResult(
            passed=self.passed,
            check_name=check,
            severity=dg.AssetCheckSeverity.WARN if self.warns else severity,
            description=self.text if self.passed else f"{self.text} {self.advice}".rstrip(),
            metadata=metadata,
        )


def not_empty(snapshot: CheckedSnapshot) -> Verdict:
    """There are rows."""
    shared = not_empty_result(snapshot.subject, snapshot.quality.rows)
    return Verdict(
        shared.passed,
        str(shared.description),
        {"octogen/rows": snapshot.quality.rows},
        "Correct the filters of the search, or ask Octogen whether the API key may read the "
        "catalog.",
    )


def unique_uuid(snapshot: CheckedSnapshot) -> Verdict:
    """Each product of a catalog has one row."""
    if missing := _missing(snapshot, "uuid"):
        return missing
    repeats = snapshot.quality.repeats
    return Verdict(
        not repeats,
        f"{snapshot.subject}: {repeats:,} of {snapshot.quality.rows:,} rows repeat a product of "
        "their catalog.",
        {"octogen/rows": snapshot.quality.rows, "octogen/repeated_rows": repeats},
        "Materialize it again. If the asset is your own, keep one row of each uuid.",
        snapshot.quality.repeated_rows,
    )


def complete(snapshot: CheckedSnapshot) -> Verdict:
    """There are about as many rows as the source of catalogs counts products.

    The source may count groups of what a search lists, so the count means as many rows as it meant
    in the latest snapshot. In the first one nothing says whether a difference is wrong.
    """
    rows, limit = snapshot.quality.rows, snapshot.limits.max_missing_share
    expected = snapshot.history.current("octogen/expected_rows")
    ratio = snapshot.history.current("octogen/rows_per_product")
    if expected is None or limit is None:
        return Verdict(
            True,
            f"{snapshot.subject}: the number of its products at the source is not known.",
            {"octogen/rows": rows},
        )
    share = max(0.0, 1 - rows / expected) if expected else 0.0
    numbers: Metadata = {
        "octogen/rows": rows,
        "octogen/expected_rows": expected,
        "octogen/missing_share": round(share, 6),
    }
    which = "that the source counts"
    advice = "The source may have counted on another day. Materialize it again later"
    if ratio is None:
        advice += ": from then on a snapshot is compared with what the count meant in the last one"
    else:
        numbers["octogen/rows_per_product"] = ratio
        which = f"to expect, {ratio:g} for each that the source counts, as in the last snapshot"
    return Verdict(
        share <= limit,
        f"{snapshot.subject} has {rows:,} of the {expected:,} products {which}; {_percent(share)} "
        f"are missing, {_percent(limit)} may be.",
        numbers,
        f"{advice}. Ask Octogen about the catalog if products are still missing.",
        warns=ratio is None,
    )


def not_truncated(snapshot: CheckedSnapshot) -> Verdict:
    """The read did not end at the cap of the search."""
    truncated = snapshot.history.current("octogen/truncated")
    if truncated is None:
        return Verdict(True, f"{snapshot.subject}: whether it was truncated is not known.")
    search = snapshot.history.current("octogen/search") or {}
    cap = search.get("max_products")
    numbers: Metadata = {"octogen/rows": snapshot.quality.rows}
    if cap is not None:
        numbers["octogen/max_products"] = cap
    return Verdict(
        not truncated,
        f"{snapshot.subject} was read to its end."
        if not truncated
        else f"{snapshot.subject} ends at max_products {cap}, and more products match.",
        numbers,
        "Raise or remove max_products of the search, or leave this check out with "
        "exclude=['not_truncated'].",
    )


def rows_within_bounds(snapshot: CheckedSnapshot) -> Verdict:
    """The number of rows is near that of the last snapshots."""
    rows, limit = snapshot.quality.rows, snapshot.limits.max_rows_change
    counts = [
        count
        for pair in zip(
            snapshot.history.earlier("dagster/partition_row_count"),
            snapshot.history.earlier("dagster/row_count"),
            strict=True,
        )
        for count in pair
        if count is not None
    ]
    if not counts or limit is None:
        return Verdict(
            True,
            f"{snapshot.subject} has {rows:,} rows; no number of rows of an earlier snapshot is "
            "known.",
            {"octogen/rows": rows},
        )
    typical = statistics.median(counts)
    change = max(limit * typical, MIN_ROWS_CHANGE)
    low, high = max(0, typical - change), typical + change
    return Verdict(
        low <= rows <= high,
        f"{snapshot.subject} has {rows:,} rows; {low:,.0f} to {high:,.0f} are expected after the "
        f"last {len(counts)} snapshots.",
        {
            "octogen/rows": rows,
            "octogen/rows_low": round(low),
            "octogen/rows_high": round(high),
            "octogen/earlier_rows": dg.MetadataValue.json(counts),
        },
        "Look at the changes of the products. If the number is right, the next snapshots are "
        "compared with it; max_rows_change sets the limit.",
    )


def nulls(snapshot: CheckedSnapshot) -> Verdict:
    """No column has many nulls, or many more than before."""
    shares = snapshot.quality.null_shares
    before = snapshot.history.stored(NULLS, _NULL_SHARES)
    limits = snapshot.limits.max_null_share or {}
    growth = snapshot.limits.max_null_growth
    if missing := _missing(snapshot, *limits):
        return missing
    allowed = {
        name: min(
            limits.get(name, 1.0),
            before[name] + growth if growth is not None and name in before else 1.0,
        )
        for name in shares
    }
    bad = [name for name, share in shares.items() if share > allowed[name]]
    found = "; ".join(
        f"{name} is null in {_percent(shares[name])} of the rows, {_percent(allowed[name])} are "
        "allowed"
        for name in bad
    )
    return Verdict(
        not bad,
        f"{snapshot.subject}: {found or 'no column has too many nulls'}.",
        {
            "octogen/rows": snapshot.quality.rows,
            "octogen/columns_with_too_many_nulls": len(bad),
            _NULL_SHARES: dg.MetadataValue.json(
                {name: round(share, 6) for name, share in shares.items()}
            ),
        },
        "Ask Octogen whether it still has these values, or set max_null_share and max_null_growth.",
        lambda: snapshot.quality.null_rows(bad),
    )


def prices(snapshot: CheckedSnapshot) -> Verdict:
    """The prices of each currency are plausible."""
    if missing := _missing(snapshot, "current_price", "currency") or _no_numbers(
        snapshot, "current_price", "original_price"
    ):
        return missing
    limit = snapshot.limits.max_bad_price_share or 0.0
    table = snapshot.quality.prices
    shares = table.select(
        "currency", (pl.col("bad") / pl.col("products")).alias("share"), "bad"
    ).rows()
    wrong = [(currency, share, bad) for currency, share, bad in shares if share > limit]
    found = "; ".join(
        f"bad prices in {currency or 'no currency'}: {bad:,} ({_percent(share)}), "
        f"{_percent(limit)} are allowed"
        for currency, share, bad in wrong
    )
    return Verdict(
        not wrong,
        f"{snapshot.subject}: {found or f'the prices of {len(shares)} currencies are plausible'}.",
        {
            "octogen/priced_products": int(table["priced"].sum()),
            "octogen/bad_prices": int(table["bad"].sum()),
            "octogen/prices_by_currency": dg.MetadataValue.md(markdown_table(table)),
        },
        "Compare the sample with the shop, and tell Octogen if it is right there. "
        "max_bad_price_share and price_outlier_ratio set the limits.",
        snapshot.quality.bad_price_rows,
    )


def schema_unchanged(snapshot: CheckedSnapshot) -> Verdict:
    """The columns and their types are those of the last snapshot."""
    columns = len(snapshot.quality.schema)
    now = dict(_types(snapshot.quality.schema))
    before = snapshot.history.stored(SCHEMA_UNCHANGED, _TYPES)
    numbers: Metadata = {"octogen/columns": columns, _TYPES: dg.MetadataValue.json(now)}
    if not before:
        return Verdict(
            True,
            f"{snapshot.subject} has {columns} columns; those of an earlier snapshot are not "
            "known.",
            numbers,
        )
    differing = {name for name, _ in before.items() ^ now.items()}
    rows = [
        (name, before.get(name), now.get(name))
        for name in [*now, *sorted(before.keys() - now.keys())]
        if name in differing
    ]
    return Verdict(
        not rows,
        f"{snapshot.subject}: {len(rows)} columns or fields of columns differ from those of the "
        "last snapshot."
        if rows
        else f"{snapshot.subject} has the {columns} columns of the last snapshot.",
        {**numbers, "octogen/changed_columns": len(rows)},
        "Read the changelog of octogen-dagster if its version changed, and adapt what reads these "
        "columns. The next snapshot is compared with this one.",
        lambda: pl.DataFrame(rows, schema=["column", "before", "now"], orient="row"),
    )


def unknown_fields(snapshot: CheckedSnapshot) -> Verdict:
    """The service sent no field that the schema does not know."""
    count = snapshot.history.current("octogen/unknown_fields")
    if count is None:
        return Verdict(True, f"{snapshot.subject}: the fields that were sent are not known.")
    found: dict[str, int] = snapshot.history.current("octogen/unknown_field_names") or {}
    names = dict(sorted(found.items(), key=lambda item: -item[1]))
    return Verdict(
        not count,
        f"{snapshot.subject}: the service sent {len(names)} fields that the schema does not know.",
        {
            "octogen/unknown_fields": count,
            "octogen/unknown_field_names": dg.MetadataValue.json(names),
        },
        "They are not stored. Upgrade octogen-dagster if a later version has them.",
        lambda: pl.DataFrame({"field": list(names), "values": list(names.values())}),
    )


def _missing(snapshot: CheckedSnapshot, *columns: str) -> Verdict | None:
    """The verdict on a snapshot that lacks a column of a check; None if it has all."""
    missing = [name for name in columns if name not in snapshot.quality.schema]
    if not missing:
        return None
    return Verdict(
        False,
        f"{snapshot.subject} has no column {', '.join(missing)}.",
        {"octogen/missing_columns": len(missing)},
        "Store the column, or leave this check out with `exclude`.",
    )


def _no_numbers(snapshot: CheckedSnapshot, *columns: str) -> Verdict | None:
    """The verdict on a snapshot in which a column has no numbers; None if all have."""
    types = {name: snapshot.quality.schema.get(name, pl.Null()) for name in columns}
    wrong = [
        f"{name} ({dtype})"
        for name, dtype in types.items()
        if not dtype.is_numeric() and dtype != pl.Null
    ]
    if not wrong:
        return None
    return Verdict(
        False,
        f"{snapshot.subject} has prices that are no numbers: {', '.join(wrong)}.",
        {},
        "Store them as numbers, or leave this check out with `exclude`.",
    )


def _types(schema: pl.Schema, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The type of each column, or of each field where it is a struct, such as `brand.name`."""
    for name, dtype in schema.items():
        path, inner = prefix + name, dtype
        while isinstance(inner, pl.List | pl.Array):
            path, inner = f"{path}[]", inner.inner  # type: ignore[assignment]
        if isinstance(inner, pl.Struct):
            yield from _types(pl.Schema(inner.to_schema()), f"{path}.")
        else:
            yield path, str(inner)


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"
