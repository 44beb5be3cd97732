"""The builder of the checks of snapshots, and the step that evaluates them."""

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
"""The maximum age of what is read from outside by default."""
MAX_NULL_PERCENT: Mapping[str, float] = {"product_url": 0, "title": 20, "current_price": 20}
"""The percent of nulls that are allowed by default."""


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
    """Build the checks of the snapshots of an asset.

    They run with each materialization, on its partition, also in a run of several. The snapshot
    comes from the asset's IO manager as a `polars.LazyFrame`, and one pass over the columns that
    they need answers them all:

    * `rows_within_bounds`: the number of rows is near the median of the last five snapshots;
    * `nulls`: no column has many nulls, and none that `OctogenResource` read is all null that had
      values in most rows of the last snapshots;
    * `prices`: few prices are negative, zero, above the original price or far from the median of
      their currency. Products without a currency have no median;
    * `fresh`: every catalog was materialized within `max_age`. It covers all partitions, reads no
      snapshot and never blocks. It also runs every hour while the automation condition sensor is
      on. A catalog that the source no longer lists is reported but does not fail it; nor does one
      without a snapshot until the asset's first snapshot is older than `max_age`, so a first
      backfill can take that long. A derived asset, such as a history, has it only if you pass
      `max_age`.

    The last snapshots are those of the last of the 31 times before, or else those that were
    replaced; one of another search, as a run in the launchpad may have, does not count. Without one
    `rows_within_bounds` passes. A failed check has a sample of the rows and says what to do.
    Changes and brands have none of these. A history has checks of the rows of each product:
    `one_current_row`, `no_overlap` and `no_gap`; `nothing_left_out` names the snapshots that have
    no place in it. Alerts have a check for each rule, which warns if more products than its
    `max_products` and `max_percent` met it in the last snapshot. That a
    snapshot is complete and has each product once needs no check: the read fails otherwise.

    Args:
        asset: An asset of products, of what follows them, or one of your own. If
            its kind has checks, as that of `build_product_history_asset`, it has these. Any other
            asset has those of products: all, or if its metadata has `dagster/column_schema`, those
            whose columns are there.
        max_age: The maximum age of each catalog's last materialization; None leaves `fresh` out.
            The default, two days, applies only to an asset that is read from a service or from
            outside of Dagster.
        max_rows_change_percent: By how many percent the number of rows may differ from that of the
            last snapshots, where it may always differ by ten; None leaves `rows_within_bounds` out.
        max_null_percent: The most percent of nulls of columns by name, 0 to 100; None leaves
            `nulls` out. The default leaves out columns that the asset does not declare. One that is
            named here is not compared with the last snapshots: with 100 it may lose all values.
        max_bad_price_percent: Percent of the products whose price may be bad in one of these
            ways, 0 to 100; None leaves `prices` out.
        price_outlier_ratio: How many times a price may be above or below the median.
        exclude: Names of checks to leave out, of those that such an asset may have.
        blocking: True to keep what is downstream in the same run from running after a failed check.
        severity: The severity of a failed check.

    Returns:
        Checks for `dagster.Definitions(asset_checks=...)`.

    Raises:
        ValueError: The asset is several assets, or its partitions are of two dimensions that are
            not a catalog and a time; a limit is out of its range; `max_null_percent` names a
            column that the asset does not declare; `exclude` names no check of such an asset; or
            checks are to block that only warn.
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
            "blocking=True needs severity=dg.AssetCheckSeverity.ERROR: Dagster lets what is "
            "downstream run after a warning."
        )
    found = kind.checks or limits.checks(columns)
    chosen = {name: check for name, check in found.items() if name not in exclude}
    if NULLS in chosen and not kind.checks and columns is not None:
        for name in {*(max_null_percent or ())} - columns:
            raise ValueError(
                f"max_null_percent names {name!r}, which {asset.key.to_user_string()} does not "
                f"have.{did_you_mean(name, columns)} It has {', '.join(sorted(columns))}."
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
    """The names of all checks that an asset may have."""
    return [*PRODUCT_CHECKS, *kind_of(asset).checks, FRESH]


def check_names(exclude: Collection[str], known: Collection[str]) -> None:
    """Refuse names of checks that are not known."""
    for name in [exclude] if isinstance(exclude, str) else exclude:
        if name not in known:
            raise ValueError(
                f"exclude names {name!r}, and there is no such check.{did_you_mean(name, known)} "
                f"The checks are {', '.join(known)}."
            )


def _checks_of_snapshots(
    asset: dg.AssetsDefinition, step: "_Step", *, blocking: bool
) -> dg.AssetChecksDefinition:
    """Build one step that opens the snapshot and answers all checks."""
    key, has_range = asset.key, takes_range(asset.backfill_policy, asset.partitions_def)
    with warnings.catch_warnings():
        # Without the partitions Dagster loads those of all runs, not that of the run.
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
                            f"The checks of {len(missing):,} of {len(snapshot.partitions):,} "
                            f"partitions of {key.to_user_string()} could not be evaluated.",
                            *first_lines(missing),
                        ]
                    )
                )
            return
        own = op.partition_key if op.has_partition_key else None
        with permanent_errors_fail():
            frame = step.opened(snapshot, own)
        yield from step.results(context.instance, frame, own, selected)

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
    """The step of an asset's checks: those of its kind, or else those that fit its columns."""

    asset: dg.AssetKey
    partitions: PartitionLayout
    checks: Mapping[str, Check]
    kind: TableKind
    limits: ProductLimits
    severity: dg.AssetCheckSeverity

    @property
    def reads_rows(self) -> bool:
        """False if what the materialization says is all that is judged."""
        return bool(self.kind.rules) or not self.kind.checks

    def opened(self, snapshots: Snapshots, partition: str | None) -> pl.LazyFrame:
        """The rows of a snapshot; none if none are read."""
        return snapshots.frame(partition) if self.reads_rows else pl.LazyFrame()

    def results(
        self,
        instance: dg.DagsterInstance,
        frame: pl.LazyFrame,
        partition: str | None,
        selected: Collection[str],
    ) -> Iterator[dg.AssetCheckResult]:
        """The results of the selected checks of a snapshot."""
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
