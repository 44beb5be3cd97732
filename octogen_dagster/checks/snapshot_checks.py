"""build_snapshot_checks, and the Dagster step that evaluates the checks."""

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import dagster as dg
import polars as pl

from octogen_dagster.assets.definition import (
    FRESH,
    permanent_errors_fail,
    require_asset,
    require_max_age,
    takes_range,
)
from octogen_dagster.checks.checked_snapshot import CheckedSnapshot
from octogen_dagster.checks.freshness import build_fresh_check, is_derived
from octogen_dagster.checks.product_checks import NULLS, PRODUCT_CHECKS, ProductLimits
from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.kinds import Check, TableKind, Verdict
from octogen_dagster.frames.markdown import markdown_table
from octogen_dagster.frames.source import utc_now
from octogen_dagster.snapshots.failures import first_lines
from octogen_dagster.snapshots.loading import Snapshots, snapshot_inputs
from octogen_dagster.snapshots.metadata import declared_columns, entry_of, kind_of
from octogen_dagster.snapshots.partitions import PartitionLayout
from octogen_dagster.snapshots.range_checks import PARTITION_CHECKS, partition_evaluations
from octogen_dagster.validation import did_you_mean

MAX_AGE = timedelta(days=2)
"""The default maximum age, for assets that are read from a service or from outside Dagster."""
MAX_NULL_PERCENT: Mapping[str, float] = {"product_url": 0, "title": 20, "current_price": 20}
"""The default maximum percentages of nulls."""


def build_snapshot_checks(
    asset: dg.AssetsDefinition,
    *,
    max_age: timedelta | None = MAX_AGE,
    max_rows_change_percent: float | None = 30,
    max_null_percent: Mapping[str, float] | None = MAX_NULL_PERCENT,
    max_bad_price_percent: float | None = 0.1,
    price_outlier_ratio: float = 100.0,
    exclude: Collection[str] = (),
    blocking: bool = False,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    _clock: Callable[[], datetime] = utc_now,
) -> list[dg.AssetChecksDefinition]:
    """Build snapshot checks for an asset.

    The checks run with each materialization and evaluate its partition. In a run with several
    partitions, they evaluate each partition. The asset's IO manager loads the snapshot as a
    `polars.LazyFrame`, and the required columns are read only once for all checks:

    * `rows_within_bounds`: the row count is close to the median of the last five snapshots.
    * `nulls`: no column has too many nulls. For columns read by `OctogenResource`, the check also
      fails if all values are null although most rows in earlier snapshots had values.
    * `prices`: few prices are negative, zero, above the original price or far from their currency's
      median. Products without a currency are not compared with a median.
    * `fresh`: every catalog was materialized within `max_age`. The check covers all partitions,
      reads no snapshot and never blocks. It also runs every hour while the automation condition
      sensor is on. If the source no longer lists a catalog, the check reports this but does not
      fail. The check also does not fail for a catalog without a snapshot until the asset's first
      snapshot is older than `max_age`, so that a first backfill has enough time. A derived asset,
      such as a history, has this check only if you pass `max_age`.

    If the asset has time partitions, the earlier snapshots are the latest snapshots of the
    preceding 31 partitions. Otherwise, they are the snapshots that were replaced. Snapshots from a
    different search, for example after you edited it in the launchpad, are ignored. If there is no
    earlier snapshot, `rows_within_bounds` passes. A failed check shows sample rows and suggests
    what to do.

    The first three checks do not apply to changes and brands assets. A history has the checks
    `one_current_row`, `no_overlap` and `no_gap` for each product's rows, and `nothing_left_out`,
    which lists snapshots that could not be added. An alerts asset has a check for each rule. The
    check warns if the number of products that matched the rule in the latest snapshot exceeds both
    `max_products` and `max_percent`. There is no check for incomplete snapshots or duplicate
    products, because a read with either of these problems fails.

    Args:
        asset: A products asset, a derived asset or your own asset. If the asset's table kind
            defines checks, as it does for a history, the asset gets these checks. Any other asset
            gets the product checks. If the asset's metadata contains `dagster/column_schema`, the
            asset gets only the product checks whose columns are declared.
        max_age: Maximum age of each catalog's latest materialization; None disables `fresh`. The
            default of two days applies only to assets that are read from a service or from outside
            Dagster.
        max_rows_change_percent: Maximum difference between the row count and the median row count
            of the earlier snapshots, as a percentage of the median; None disables
            `rows_within_bounds`. A difference of up to ten rows always passes.
        max_null_percent: Maximum percentage of nulls by column, 0 to 100; None disables `nulls`.
            The default skips columns that the asset does not declare. Columns listed here are not
            compared with earlier snapshots. Set a column to 100 to allow it to lose all its values.
        max_bad_price_percent: Maximum percentage of products with each kind of bad price, 0 to 100;
            None disables `prices`.
        price_outlier_ratio: Maximum ratio between a price and the median, in either direction.
        exclude: Names of checks to skip.
        blocking: True to stop downstream assets in the same run after a failed check.
        severity: The severity of a failed check.

    Returns:
        Checks for `dagster.Definitions(asset_checks=...)`.

    Raises:
        ValueError: `asset` defines several assets, or has two partition dimensions other than a
            catalog and a time; a limit is out of range; `max_null_percent` contains a column that
            the asset does not declare; `exclude` contains an unknown name; or `blocking` is True
            and the severity is WARN.
    """
    require_asset(asset, "asset")
    require_max_age(max_age)
    columns, kind = declared_columns(asset), kind_of(asset)
    if max_null_percent is MAX_NULL_PERCENT and columns is not None:
        known = columns & MAX_NULL_PERCENT.keys()
        max_null_percent = {name: MAX_NULL_PERCENT[name] for name in known}
    limits = ProductLimits(
        max_rows_change_percent, max_null_percent, max_bad_price_percent, price_outlier_ratio
    )
    check_names(exclude, names_of_checks(asset))
    if blocking and severity is dg.AssetCheckSeverity.WARN:
        raise ValueError(
            "blocking=True requires severity=dg.AssetCheckSeverity.ERROR, because Dagster still "
            "runs downstream assets after a warning."
        )
    found = kind.checks or limits.checks(columns)
    chosen = {name: check for name, check in found.items() if name not in exclude}
    if NULLS in chosen and not kind.checks and columns is not None:
        for name in {*(max_null_percent or ())} - columns:
            raise ValueError(
                f"max_null_percent contains the column {name!r}, which "
                f"{asset.key.to_user_string()} does not declare."
                f"{did_you_mean(name, columns)} The declared columns are "
                f"{', '.join(sorted(columns))}."
            )
    checks = []
    if chosen:
        layout = PartitionLayout(asset.partitions_def)
        step = _Step(asset.key, layout, chosen, kind, limits, severity)
        checks.append(_checks_of_snapshots(asset, step, blocking=blocking))
    if max_age is MAX_AGE and is_derived(asset):
        max_age = None
    if max_age is not None and FRESH not in exclude:
        checks.append(build_fresh_check(asset, max_age, severity, _clock))
    return checks


def names_of_checks(asset: dg.AssetsDefinition) -> list[str]:
    """Return the names of all checks that an asset can have."""
    return [*PRODUCT_CHECKS, *kind_of(asset).checks, FRESH]


def check_names(exclude: Collection[str], known: Collection[str]) -> None:
    """Raise an error for unknown check names."""
    for name in [exclude] if isinstance(exclude, str) else exclude:
        if name not in known:
            raise ValueError(
                f"exclude contains the unknown check {name!r}.{did_you_mean(name, known)} The "
                f"available checks are {', '.join(known)}."
            )


def _checks_of_snapshots(
    asset: dg.AssetsDefinition, step: "_Step", *, blocking: bool
) -> dg.AssetChecksDefinition:
    """Build a single step that loads the snapshot and evaluates all checks."""
    key, has_range = asset.key, takes_range(asset.backfill_policy, asset.partitions_def)
    with warnings.catch_warnings():
        # Without partitions_def, Dagster loads all partitions instead of the run's partitions.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        specs = [
            dg.AssetCheckSpec(
                name,
                asset=key,
                description=check.description,
                blocking=blocking and not check.warns,
                partitions_def=asset.partitions_def,
            )
            for name, check in step.checks.items()
        ]

    def snapshot_checks(
        context: dg.AssetCheckExecutionContext, snapshot: Snapshots
    ) -> Iterator[dg.AssetCheckResult | dg.AssetCheckEvaluation]:
        op = context.op_execution_context
        selected = [each.name for each in op.selected_asset_check_keys]
        if has_range and not op.has_partition_key and snapshot.has_each:
            missing = []
            for partition in snapshot.partitions:
                try:
                    frame = step.opened(snapshot, partition)
                except OctogenSnapshotError as error:
                    missing.append(f"{partition!r}: {error}")
                    continue
                found = step.results(context.instance, frame, partition, selected)
                yield from partition_evaluations(context.instance, key, partition, found)
            if missing:
                raise dg.Failure(
                    "\n".join(
                        [
                            f"The checks for {len(missing):,} of {len(snapshot.partitions):,} "
                            f"partitions of {key.to_user_string()} could not be evaluated.",
                            *first_lines(missing),
                        ]
                    )
                )
            return
        partition_key = op.partition_key if op.has_partition_key else None
        with permanent_errors_fail():
            frame = step.opened(snapshot, partition_key)
        yield from step.results(context.instance, frame, partition_key, selected)

    checks = dg.multi_asset_check(
        name=f"{key.to_python_identifier()}_checks",
        specs=specs,
        can_subset=True,
        **snapshot_inputs(snapshot=asset),
    )(snapshot_checks)
    PARTITION_CHECKS[checks.node_def] = step.results
    return checks


@dataclass(frozen=True)
class _Step:
    """Evaluates an asset's snapshot checks."""

    asset: dg.AssetKey
    partitions: PartitionLayout
    checks: Mapping[str, Check]
    kind: TableKind
    limits: ProductLimits
    severity: dg.AssetCheckSeverity

    @property
    def reads_rows(self) -> bool:
        """True if the checks need the snapshot's rows; False if metadata is enough."""
        return bool(self.kind.rules) or not self.kind.checks

    def opened(self, snapshots: Snapshots, partition: str | None) -> pl.LazyFrame:
        """Return the snapshot's rows, or an empty frame if the checks need no rows."""
        return snapshots.frame(partition) if self.reads_rows else pl.LazyFrame()

    def results(
        self,
        instance: dg.DagsterInstance,
        frame: pl.LazyFrame,
        partition: str | None,
        selected: Collection[str],
    ) -> Iterator[dg.AssetCheckResult]:
        """Yield the results of the selected checks for a snapshot."""
        rules = self.kind.rules if self.kind.checks else self.limits.rules(frame.collect_schema())
        snapshot = CheckedSnapshot(
            instance,
            self.asset,
            self.partitions,
            partition,
            self.kind.in_order(frame),
            [rule for rule in rules if rule.check in selected],
        )
        for name, check in self.checks.items():
            if name not in selected:
                continue
            passed, text, figures = self._verdict(name, check, snapshot)
            shown = {"rows": snapshot.rows, **figures} if self.reads_rows else figures
            yield dg.AssetCheckResult(
                passed=passed,
                check_name=name,
                severity=dg.AssetCheckSeverity.WARN if check.warns else self.severity,
                description=text if passed or not check.advice else f"{text} {check.advice}",
                metadata={
                    f"octogen/{name}": entry_of(each, markdown_table)
                    for name, each in shown.items()
                },
            )

    def _verdict(self, name: str, check: Check, snapshot: CheckedSnapshot) -> Verdict:
        if check.judge is not None:
            return check.judge(snapshot.subject, snapshot.entries)
        return snapshot.by_rules(name) if self.kind.checks else self.limits.judge(name, snapshot)
