"""The factory of the checks of snapshots."""

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import timedelta
from typing import NamedTuple

import dagster as dg
import polars as pl

from octogen_dagster.dagster_parts import (
    FRESH,
    NOT_EMPTY,
    NOT_EMPTY_DESCRIPTION,
    require_max_age,
)
from octogen_dagster.frames.quality import ProductQuality
from octogen_dagster.settings import did_you_mean, require_fraction
from octogen_dagster.snapshots import check_verdicts as verdicts
from octogen_dagster.snapshots.check_history import CheckedPartition, read_history
from octogen_dagster.snapshots.check_verdicts import (
    COMPARED,
    NULLS,
    SCHEMA_UNCHANGED,
    CheckedSnapshot,
    CheckLimits,
    Verdict,
)
from octogen_dagster.snapshots.columns import COLUMN_SCHEMA
from octogen_dagster.snapshots.freshness_check import build_fresh_check
from octogen_dagster.snapshots.partitions import SnapshotPartitions

MAX_NULL_SHARE: Mapping[str, float] = {"product_url": 0.0, "title": 0.2, "current_price": 0.2}
"""The shares of nulls that are allowed by default."""


class _Check(NamedTuple):
    """A check of the rows of a snapshot.

    Attributes:
        judge: Returns its verdict.
        description: What is checked.
        columns: The columns that an asset has for which the check makes sense.
        limit: The name of the limit without which there is no check.
        is_notice: True if it only warns and never blocks.
    """

    judge: Callable[[CheckedSnapshot], Verdict]
    description: str
    columns: frozenset[str] = frozenset()
    limit: str | None = None
    is_notice: bool = False


_LISTED = frozenset({"title"})
"""A column of products and their details, and not of their changes, which may be few or none."""
_READ = frozenset({"fetched_at"})
"""A column of products that were read from the service."""

_CHECKS: Mapping[str, _Check] = {
    NOT_EMPTY: _Check(verdicts.not_empty, NOT_EMPTY_DESCRIPTION, _LISTED),
    "unique_uuid": _Check(verdicts.unique_uuid, "Each product of a catalog has one row."),
    "complete": _Check(
        verdicts.complete,
        "There are about as many rows as the source's count of products means.",
        _READ,
        "max_missing_share",
    ),
    "not_truncated": _Check(
        verdicts.not_truncated, "The read did not end at the max_products of the search.", _READ
    ),
    "rows_within_bounds": _Check(
        verdicts.rows_within_bounds,
        "The number of rows is near that of the last snapshots.",
        _LISTED,
        "max_rows_change",
    ),
    NULLS: _Check(verdicts.nulls, "No column has many nulls, or many more than before.", _LISTED),
    "prices": _Check(
        verdicts.prices,
        "The prices of each currency are plausible: none negative, zero, above the original one or "
        "far from the median.",
        frozenset({"current_price", "currency"}),
        "max_bad_price_share",
    ),
    SCHEMA_UNCHANGED: _Check(
        verdicts.schema_unchanged,
        "The columns and their types, also those in structs, are those of the last snapshot.",
    ),
    "unknown_fields": _Check(
        verdicts.unknown_fields,
        "The service sent no field that the schema does not know.",
        _READ,
        is_notice=True,
    ),
}


def build_snapshot_checks(
    asset: dg.AssetsDefinition,
    *,
    max_age: timedelta | None = timedelta(days=2),
    max_rows_change: float | None = 0.3,
    max_missing_share: float | None = 0.05,
    max_null_share: Mapping[str, float] | None = MAX_NULL_SHARE,
    max_null_growth: float | None = 0.2,
    max_bad_price_share: float | None = 0.001,
    price_outlier_ratio: float = 100.0,
    exclude: Collection[str] = (),
    blocking: bool = False,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> list[dg.AssetChecksDefinition]:
    """Build the checks of the snapshots of an asset.

    They run with each materialization, on its partition. The snapshot comes from the asset's IO
    manager as a `polars.LazyFrame`, and each check streams through the columns that it needs:

    * `not_empty`: there are rows;
    * `unique_uuid`: each uuid is there once in each catalog;
    * `complete`: there are about as many rows as the source's count of products means. It means as
      many rows for each as in the last snapshot of the catalog, since the source may count groups
      of what a search lists. A first snapshot only warns;
    * `not_truncated`: the read did not end at `max_products`;
    * `rows_within_bounds`: the number of rows is near the median of the last five snapshots;
    * `nulls`: no column has many nulls, or many more than in the last snapshot;
    * `prices`: in each currency few prices are negative, zero, above the original price or far from
      the currency's median. Products without a currency are counted apart, and have no median;
    * `schema_unchanged`: the columns and their types are those of the last snapshot;
    * `unknown_fields`: the first pages have no field that is not stored (always a warning);
    * `fresh`: every catalog was materialized lately. It looks at all partitions, reads no snapshot
      and never blocks. It also runs every hour where the automation condition sensor is on. A
      catalog that is no longer listed is named, and does not fail it; nor does one without a
      snapshot until the asset's first one is older than `max_age`, so that a first backfill may
      last.

    The last snapshot is that of the last of the 31 times before, or else the one that was replaced;
    one of another search, as a run in the launchpad may have, does not count.
    A check passes if what it compares with is not known. A failed check has a sample of the rows
    and says what to do. Changes have `unique_uuid`, `schema_unchanged` and `fresh` only, and
    details have all but `complete`, `not_truncated` and `unknown_fields`.

    Args:
        asset: An asset of products, of their details or of their changes; or one of your own with
            these columns. If its metadata has `dagster/column_schema`, the columns there say which
            checks it has; else it has all.
        max_age: The maximum age of each catalog's last materialization; None leaves `fresh` out.
        max_rows_change: Share by which the number of rows may differ from that of the last
            snapshots, where it may always differ by ten; None leaves `rows_within_bounds` out.
        max_missing_share: Share of the source's products that may be missing, 0 to 1; None leaves
            `complete` out.
        max_null_share: The largest share of nulls of columns by name, 0 to 1. None sets no limit.
            The default leaves out columns that the asset does not declare.
        max_null_growth: The most that the share of nulls of a column may grow from one snapshot to
            the next, 0 to 1. None sets no limit. Without both limits `nulls` is left out.
        max_bad_price_share: Share of the products of a currency whose price may be bad, 0 to 1;
            None leaves `prices` out.
        price_outlier_ratio: How many times a price may be above or below the median.
        exclude: Names of checks to leave out.
        blocking: True to keep what is downstream in the same run from running after a failed check.
        severity: The severity of a failed check.

    Returns:
        Checks for `dagster.Definitions(asset_checks=...)`.

    Raises:
        ValueError: The asset is several assets, or has no column `uuid`, or its partitions are of
            two dimensions that are not a catalog and a time; a limit is out of its range; `exclude`
            has the name of no check; or checks are to block that only warn.
    """
    require_max_age(max_age)
    key = _only_key(asset)
    columns = _declared_columns(asset, key)
    if max_null_share is MAX_NULL_SHARE and columns is not None:
        max_null_share = {name: MAX_NULL_SHARE[name] for name in columns & MAX_NULL_SHARE.keys()}
    limits = CheckLimits(
        max_missing_share=max_missing_share,
        max_rows_change=max_rows_change,
        max_null_share=max_null_share,
        max_null_growth=max_null_growth,
        max_bad_price_share=max_bad_price_share,
    )
    _check_limits(limits, price_outlier_ratio)
    _check_names(exclude)
    if blocking and severity is dg.AssetCheckSeverity.WARN:
        raise ValueError(
            "blocking=True needs severity=dg.AssetCheckSeverity.ERROR: Dagster lets what is "
            "downstream run after a warning."
        )
    names = [name for name in _names(columns, limits) if name not in exclude]
    checks = []
    if names:
        checks.append(
            _rows_checks(
                asset,
                {name: _CHECKS[name] for name in names},
                limits,
                price_outlier_ratio,
                blocking=blocking,
                severity=severity,
            )
        )
    if max_age is not None and FRESH not in exclude:
        checks.append(build_fresh_check(asset, max_age, severity))
    return checks


def _rows_checks(
    asset: dg.AssetsDefinition,
    checks: Mapping[str, _Check],
    limits: CheckLimits,
    price_outlier_ratio: float,
    *,
    blocking: bool,
    severity: dg.AssetCheckSeverity,
) -> dg.AssetChecksDefinition:
    """Build one step that opens the snapshot and answers all checks of its rows."""
    key, partitions = asset.key, SnapshotPartitions(asset.partitions_def)

    @dg.multi_asset_check(
        name=f"{key.to_python_identifier()}_checks",
        specs=[_spec(name, each, asset, blocking=blocking) for name, each in checks.items()],
        ins={"snapshot": dg.AssetIn(key)},
        can_subset=True,
    )
    def snapshot_checks(
        context: dg.AssetCheckExecutionContext, snapshot: pl.LazyFrame
    ) -> Iterator[dg.AssetCheckResult]:
        op = context.op_execution_context
        partition = op.partition_key if op.has_partition_key else None
        checked = CheckedPartition(key, partition, partitions)
        subject = CheckedSnapshot(
            str(checked),
            ProductQuality(snapshot, price_outlier_ratio),
            read_history(context.instance, checked, COMPARED),
            limits,
        )
        for name, each in checks.items():
            if dg.AssetCheckKey(key, name) in op.selected_asset_check_keys:
                warns = dg.AssetCheckSeverity.WARN if each.is_notice else severity
                yield each.judge(subject).result(name, warns)

    return snapshot_checks


def _spec(
    name: str, check: _Check, asset: dg.AssetsDefinition, *, blocking: bool
) -> dg.AssetCheckSpec:
    with warnings.catch_warnings():
        # Without the partitions Dagster loads those of all runs, not that of the run.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(
            name,
            asset=asset.key,
            description=check.description,
            blocking=blocking,
            partitions_def=asset.partitions_def,
        )


def _only_key(asset: dg.AssetsDefinition) -> dg.AssetKey:
    if len(asset.keys) != 1:
        raise ValueError(
            f"The definition has {len(asset.keys)} assets, and the checks are of one. Build them "
            "for each asset on its own."
        )
    return asset.key


def _declared_columns(asset: dg.AssetsDefinition, key: dg.AssetKey) -> set[str] | None:
    """The names of the columns that an asset declares; None if it declares none.

    Raises:
        ValueError: There is no `uuid` among them.
    """
    schema = asset.metadata_by_key.get(key, {}).get(COLUMN_SCHEMA)
    if isinstance(schema, dg.TableSchemaMetadataValue):
        schema = schema.schema
    if not isinstance(schema, dg.TableSchema):
        return None
    columns = {column.name for column in schema.columns}
    if "uuid" not in columns:
        raise ValueError(
            f"Asset {key.to_user_string()!r} has no column 'uuid', so its rows are no products "
            f"that could be checked. Its columns are {', '.join(sorted(columns))}. Give "
            "build_snapshot_checks an asset of products, of their details or of their changes."
        )
    return columns


def _names(columns: Collection[str] | None, limits: CheckLimits) -> Iterator[str]:
    """The checks that make sense for an asset, by its limits and the columns that it declares."""
    for name, check in _CHECKS.items():
        has_limit = check.limit is None or getattr(limits, check.limit) is not None
        if name == NULLS:
            has_limit = limits.max_null_share is not None or limits.max_null_growth is not None
        if has_limit and (columns is None or check.columns.issubset(columns)):
            yield name


def _check_limits(limits: CheckLimits, price_outlier_ratio: float) -> None:
    shares = {
        "max_missing_share": limits.max_missing_share,
        "max_null_growth": limits.max_null_growth,
        "max_bad_price_share": limits.max_bad_price_share,
        **{
            f"max_null_share[{name!r}]": share
            for name, share in (limits.max_null_share or {}).items()
        },
    }
    for name, share in shares.items():
        if share is not None:
            require_fraction(name, share)
    if limits.max_rows_change is not None and limits.max_rows_change < 0:
        raise ValueError(
            "max_rows_change must be a share of at least 0 (0.3 is 30 %), not "
            f"{limits.max_rows_change}"
        )
    if price_outlier_ratio <= 1:
        raise ValueError(f"price_outlier_ratio must be above 1, not {price_outlier_ratio}")


def _check_names(exclude: Collection[str]) -> None:
    known = [*_CHECKS, FRESH]
    for name in [exclude] if isinstance(exclude, str) else exclude:
        if name not in known:
            raise ValueError(
                f"exclude names {name!r}, and there is no such check.{did_you_mean(name, known)} "
                f"The checks are {', '.join(known)}."
            )
