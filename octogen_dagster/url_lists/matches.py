"""The builder of the matches of a URL list: own addresses beside the products of its export."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

import dagster as dg

from octogen_dagster.assets.definition import asset_arguments_of, asset_key
from octogen_dagster.frames.source import FrameSource, Metrics
from octogen_dagster.io_source import errors_as_raised
from octogen_dagster.printable import count
from octogen_dagster.snapshots.asset_decorator import SnapshotRun, snapshot_asset
from octogen_dagster.snapshots.loading import Snapshots, snapshot_inputs
from octogen_dagster.url_lists.list_asset import require_url_list
from octogen_dagster.url_lists.matching import (
    COVERED,
    EXPORTED,
    MATCHES_KIND,
    NOT_COVERED,
    url_matches,
)
from octogen_dagster.validation import require_percent

MIN_COVERED_PERCENT = 50.0
_MATCHED = "matched"
_MIN_MATCHED_PERCENT = 90.0


def build_url_matches_asset(
    url_list: dg.AssetsDefinition,
    coverage: dg.AssetsDefinition,
    offers: dg.AssetsDefinition,
    *,
    name: str | dg.AssetSpec | None = None,
    min_covered_percent: float = MIN_COVERED_PERCENT,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset: the addresses of a URL list beside the products that Octogen has of them.

    It joins three tables that are stored, and asks nobody. There is a row for each pair of a row of
    the list's table and a product whose address it has, for each row that has no product, and for
    each product of no address, with a `sku` of null. The columns are `sku`, `url`, `status`,
    `matched_by` and the others of the list's table, then those of the offers. A column of the table
    that is there already is named `own_<name>`.

    `status` is `covered`, `not_covered`, `pending` (added since the export) or `rejected`. A
    product belongs to the addresses that are its `product_url`, as they were sent or as Octogen
    echoed them, or that only their spelling tells apart (`matched_by` is `url`), and without any to
    those of its page (`page`) that share most parameters with it: the page is the host and the
    path, where `/collections/<x>/products/<y>` is `/products/<y>`. A covered address without any
    product gets those of its page as well.

    The checks are `covered` (the share of exported addresses that are covered) and `matched` (the
    share of covered addresses that have a product without doubt, at least 90 %), both warnings.

    Args:
        url_list: An asset of `build_url_list_asset`.
        coverage: The snapshot of the view `url_coverage_v1` of its export, as of
            `build_linked_snapshot_asset`.
        offers: The snapshot of the view `products_current_v1`, with the column `product_url`.
        name: The asset's name or `dagster.AssetSpec`; by default `<url_list>_matches`.
        min_covered_percent: The least percent of the exported addresses that must be covered for
            the check `covered` to pass, from 0 to 100.
        asset_arguments: Any other argument of `@dagster.asset`. With
            `automation_condition=octogen_dagster.follow_upstream()` the matches follow the list and
            its export.

    Raises:
        TypeError: An argument is not an asset.
        ValueError: url_list is not an asset of `build_url_list_asset`, or the percent is out of
            range.
    """
    require_url_list(url_list)
    require_percent("min_covered_percent", min_covered_percent)
    given = asset_arguments_of(name or f"{url_list.key.path[-1]}_matches", asset_arguments)
    key = asset_key(given)
    checks = {
        COVERED: f"At least {min_covered_percent:g}% of the exported addresses are covered.",
        _MATCHED: f"At least {_MIN_MATCHED_PERCENT:g}% of the covered addresses have products.",
    }

    @snapshot_asset(
        {
            **snapshot_inputs(urls=url_list, coverage=coverage, offers=offers),
            "check_specs": [
                dg.AssetCheckSpec(name, asset=key, description=description)
                for name, description in checks.items()
            ],
            "description": (
                f"The addresses of {url_list.key.to_user_string()} beside the products that "
                "Octogen has of them, by its last export. A row is an address of an article and a "
                "product."
            ),
        },
        given,
        kind=MATCHES_KIND,
    )
    def matches(
        _run: SnapshotRun, _partition: str | None, **tables: Snapshots
    ) -> dg.MaterializeResult[FrameSource]:
        own, exported, products = (
            tables[name].frame(None) for name in ("urls", "coverage", "offers")
        )
        for frame, asset, needed in (
            (exported, coverage, EXPORTED),
            (products, offers, ("product_url",)),
        ):
            names = frame.collect_schema().names()
            if missing := [name for name in needed if name not in names]:
                raise dg.Failure(
                    f"{asset.key.to_user_string()} has no column {missing[0]!r}, by which own "
                    "addresses are joined. Add it to the columns that are read.",
                    allow_retries=False,
                )
        with errors_as_raised():
            of_export = exported.select(EXPORTED.names()).cast(EXPORTED).collect()
            found = url_matches(own.collect(), of_export, products)
        addresses, figures = found.addresses, found.figures
        if addresses[COVERED] and not figures["products"]:
            raise dg.Failure(
                f"{coverage.key.to_user_string()} says that there are products of "
                f"{count(addresses[COVERED], 'address', 'addresses')}, and "
                f"{offers.key.to_user_string()} has none. Nothing was published. Materialize both "
                "again.",
                allow_retries=False,
            )
        summary, metrics = found.summary, Metrics({**addresses, **figures})
        newest = cast("datetime | None", of_export["exported_at"].max())
        if newest is not None:
            summary += f"; exported {newest:%Y-%m-%d %H:%M} UTC"
            metrics["exported_at"] = newest
        source = FrameSource(found.rows, metrics={"summary": summary, **metrics})
        return dg.MaterializeResult(
            value=source,
            check_results=[
                _covered(addresses, min_covered_percent),
                _matched(found.matched_fraction),
            ],
        )

    return matches


def _covered(addresses: Mapping[str, int], min_percent: float) -> dg.AssetCheckResult:
    """The result of the check `covered`, of the number of addresses by status."""
    covered = addresses[COVERED]
    exported = covered + addresses[NOT_COVERED]
    fraction = covered / exported if exported else None
    description = "No address was exported yet."
    if fraction is not None:
        description = (
            f"Octogen covers {covered:,} of "
            f"{count(exported, 'exported address', 'exported addresses')}; {min_percent:g}% are "
            "expected."
        )
    shown = {} if fraction is None else {"octogen/covered_fraction": fraction}
    return _warning(COVERED, fraction, min_percent, description, shown)


def _matched(fraction: float | None) -> dg.AssetCheckResult:
    """The result of the check `matched`, of the share of covered addresses with a product."""
    description = "No address is covered."
    if fraction is not None:
        description = (
            f"{fraction:.0%} of the covered addresses have a product; {_MIN_MATCHED_PERCENT:g}% "
            "are expected. Which product is of which address is found by their pages."
        )
    shown = {} if fraction is None else {"octogen/matched_fraction": fraction}
    return _warning(_MATCHED, fraction, _MIN_MATCHED_PERCENT, description, shown)


def _warning(
    check: str,
    fraction: float | None,
    min_percent: float,
    description: str,
    shown: Mapping[str, float],
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=fraction is None or 100 * fraction >= min_percent,
        check_name=check,
        severity=dg.AssetCheckSeverity.WARN,
        description=description,
        metadata=shown,
    )
