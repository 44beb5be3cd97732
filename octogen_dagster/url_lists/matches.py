"""build_url_matches_asset: match a URL list's table with the products in the list's export."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, cast

import dagster as dg
import polars as pl

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
    Matches,
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
    """Build an asset that matches a URL list's table with the exported products.

    The asset joins three stored tables and sends no requests. The result has one row for each match
    between a row in your table and a product. Table rows without a product and products without a
    URL (whose `sku` is null) also have one row each. The columns are `sku`, `url`, `status`,
    `matched_by` and the other columns in your table, followed by the columns in `offers`. If a
    column in your table has the same name as one of these, it is renamed `own_<name>`.

    `status` is `covered`, `not_covered`, `pending` (added after the latest export) or `rejected`. A
    product matches a URL if its `product_url` equals the URL, either as sent or as normalized by
    Octogen, or differs only in spelling. In this case, `matched_by` is `url`. If there is no such
    URL, the product matches the URLs for the same page that share the most parameters, and
    `matched_by` is `page`. The page consists of the host and the path. The path
    `/collections/<x>/products/<y>` counts as `/products/<y>`. If a covered URL still has no
    product, it matches the products with the same page that share the most parameters with it.

    Two checks warn if matches are missing. `covered` requires that at least `min_covered_percent`
    of the exported URLs are covered. `matched` requires that at least 90 % of the covered URLs have
    a reliable match.

    Args:
        url_list: An asset built by `build_url_list_asset`.
        coverage: An asset that stores snapshots of the view `url_coverage_v1` in the list's export,
            such as an asset built by `build_linked_snapshot_asset`.
        offers: An asset that stores snapshots of the view `products_current_v1` in the list's
            export, including the column `product_url`.
        name: The asset's name or `dagster.AssetSpec`. Defaults to `<url_list>_matches`.
        min_covered_percent: Minimum percentage of exported URLs that must be covered, from 0 to
            100, for the `covered` check.
        asset_arguments: Any other argument for `@dagster.asset`. With
            `automation_condition=octogen_dagster.follow_upstream()`, the matches are updated after
            the list and its export.

    Raises:
        TypeError: An argument is not an asset.
        ValueError: `url_list` was not built by `build_url_list_asset`, or `min_covered_percent` is
            out of range.
    """
    require_url_list(url_list)
    require_percent("min_covered_percent", min_covered_percent)
    given = asset_arguments_of(name or f"{url_list.key.path[-1]}_matches", asset_arguments)
    key = asset_key(given)
    checks = {
        COVERED: f"At least {min_covered_percent:g}% of the exported URLs are covered.",
        _MATCHED: f"At least {_MIN_MATCHED_PERCENT:g}% of the covered URLs have a reliable match.",
    }

    @snapshot_asset(
        {
            **snapshot_inputs(urls=url_list, coverage=coverage, offers=offers),
            "check_specs": [
                dg.AssetCheckSpec(name, asset=key, description=description)
                for name, description in checks.items()
            ],
            "description": (
                f"The URLs in {url_list.key.to_user_string()}, matched with the products in "
                "Octogen's latest export. Each row contains a URL from your table and a matching "
                "product, or only one of them if there is no match."
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
        _require_columns(exported, coverage, EXPORTED)
        _require_columns(products, offers, ["product_url"])
        with errors_as_raised():
            covered_urls = exported.select(EXPORTED.names()).cast(EXPORTED).collect()
            found = url_matches(own.collect(), covered_urls, products)
        if found.url_counts[COVERED] and not found.figures["products"]:
            raise _no_products(found.url_counts[COVERED], coverage, offers)
        newest = cast("datetime | None", covered_urls["exported_at"].max())
        return dg.MaterializeResult(
            value=_source(found, newest),
            check_results=[
                _covered(found.url_counts, min_covered_percent),
                _matched(found.matched_fraction),
            ],
        )

    return matches


def _require_columns(frame: pl.LazyFrame, asset: dg.AssetsDefinition, names: Iterable[str]) -> None:
    columns = frame.collect_schema().names()
    if missing := [name for name in names if name not in columns]:
        raise dg.Failure(
            f"{asset.key.to_user_string()} does not have the column {missing[0]!r}, which is "
            "required to match URLs. Include the column in the asset's snapshots.",
            allow_retries=False,
        )


def _no_products(
    covered: int, coverage: dg.AssetsDefinition, offers: dg.AssetsDefinition
) -> dg.Failure:
    return dg.Failure(
        f"Octogen reports products for {count(covered, 'URL')} in "
        f"{coverage.key.to_user_string()}, but {offers.key.to_user_string()} contains no "
        "products. The matches were not published. Materialize both assets again.",
        allow_retries=False,
    )


def _source(found: Matches, exported_at: datetime | None) -> FrameSource:
    metrics = Metrics({"summary": found.summary, **found.url_counts, **found.figures})
    if exported_at is not None:
        metrics["summary"] = f"{found.summary}; exported {exported_at:%Y-%m-%d %H:%M} UTC"
        metrics["exported_at"] = exported_at
    return FrameSource(found.rows, metrics=metrics)


def _covered(url_counts: Mapping[str, int], min_percent: float) -> dg.AssetCheckResult:
    covered = url_counts[COVERED]
    exported = covered + url_counts[NOT_COVERED]
    fraction = covered / exported if exported else None
    description = "Octogen has not exported any URL yet."
    if fraction is not None:
        description = (
            f"Octogen covers {covered:,} of {count(exported, 'exported URL')}; "
            f"the minimum is {min_percent:g}%."
        )
    shown = {} if fraction is None else {"octogen/covered_fraction": fraction}
    return _warning(COVERED, fraction, min_percent, description, shown)


def _matched(fraction: float | None) -> dg.AssetCheckResult:
    description = "No URL is covered."
    if fraction is not None:
        description = (
            f"{fraction:.0%} of the covered URLs have a reliable match; the minimum is "
            f"{_MIN_MATCHED_PERCENT:g}%. A product matches a URL if the product's URL "
            "leads to the same page."
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
