"""build_price_position_asset: compare your prices with competitors' prices."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster.assets.definition import Metadata, asset_arguments_of, require_asset
from octogen_dagster.frames.markdown import inline_table
from octogen_dagster.frames.pictures import inline_svg, lines_svg, price_index_svg
from octogen_dagster.history.observed import read_observed
from octogen_dagster.history.table import HISTORY_KIND, HISTORY_SCHEMA
from octogen_dagster.position.table import (
    MATCHED,
    POSITION_KIND,
    STATUSES,
    UNDERCUT,
    UNMATCHED,
    checked_price_list,
    position_checks,
    position_figures,
    price_index,
    price_position,
    price_summary,
    shares_preview,
    unmatched_preview,
)
from octogen_dagster.snapshots.asset_decorator import SnapshotRun, snapshot_asset
from octogen_dagster.snapshots.loading import Snapshots, all_partitions
from octogen_dagster.snapshots.metadata import kind_of
from octogen_dagster.validation import require_percent

_MAX_SHOWN = 10


def build_price_position_asset(
    histories: dg.AssetsDefinition | Sequence[dg.AssetsDefinition],
    price_list: pl.DataFrame | dg.AssetsDefinition | dg.AssetKey,
    *,
    name: str | dg.AssetSpec | None = None,
    undercut_percent: float = 50,
    unmatched_percent: float = 20,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset that compares your prices with competitors' prices in the latest snapshots.

    Each row of your price list becomes one row of the asset, together with the competitor's product
    that has the same URL. Rows without a match are included, and `status` gives the reason. To
    compute the position on an earlier day, call `octogen_dagster.position.table.price_position`.

    The metadata shows a summary, the products for which your price is highest compared with the
    competitor's, the number of rows by status (such as `octogen/matched` and `octogen/not_found`),
    the median index and a sample of unmatched rows. If your price list has the columns `brand` or
    `category`, the metadata also contains tables by brand or category. Two charts cover the last 30
    days: the price index, and how often you are cheaper or more expensive. `build_snapshot_checks`
    adds the checks `undercut_percent` and `unmatched_percent`, which warn if the percentage exceeds
    its limit. The metadata includes both percentages.

    Args:
        histories: One or more assets built by `build_product_history_asset`. The asset compares all
            catalogs in these histories.
        price_list: Your price list: a frame, an asset or its key, with the columns `sku`,
            `product_url` (a competitor's product page; a SKU can have several pages), `price` and
            `currency`. Other columns are kept.
        name: The asset's name or `dagster.AssetSpec`. Defaults to the first history's name with
            `_position` in place of `_history`.
        undercut_percent: The check warns if competitors undercut you in more than this percentage
            of matched rows.
        unmatched_percent: The check warns if more than this percentage of rows have no match.
        asset_arguments: Other arguments for `@dagster.asset`. Pass
            `automation_condition=octogen_dagster.follow_upstream()` to run after each history
            update.

    Raises:
        ValueError: An asset is not a history, `histories` is empty, a percentage is not between 0
            and 100, a required column is missing from the price list, or a price is not a number.
        TypeError: `histories` or `price_list` has the wrong type.
    """
    assets = _product_histories(histories)
    if isinstance(price_list, pl.DataFrame):
        checked_price_list(price_list)
    elif not isinstance(price_list, dg.AssetsDefinition | dg.AssetKey):
        raise TypeError(
            "price_list must be a polars.DataFrame, an asset or a dagster.AssetKey; got "
            f"{type(price_list).__name__}."
        )
    limits = {UNDERCUT: undercut_percent, UNMATCHED: unmatched_percent}
    for check, percent in limits.items():
        require_percent(check, percent)
    default = f"{assets[0].key.path[-1].removesuffix('_history')}_position"
    ins = {f"history_{place}": all_partitions(each) for place, each in enumerate(assets, 1)}
    if not isinstance(price_list, pl.DataFrame):
        ins["price_list"] = dg.AssetIn(
            price_list if isinstance(price_list, dg.AssetKey) else price_list.key
        )

    @snapshot_asset(
        {
            "ins": ins,
            "description": (
                "Your prices compared with competitors' prices in "
                f"{', '.join(each.key.to_user_string() for each in assets)}. Each row compares one "
                "SKU with one competitor's product page."
            ),
        },
        asset_arguments_of(name or default, asset_arguments),
        loads={"price_list": pl.DataFrame},
        kind=replace(POSITION_KIND, checks=position_checks(limits)),
    )
    def position(
        run: SnapshotRun, _partition: str | None, **inputs: Any
    ) -> dg.MaterializeResult[pl.DataFrame]:
        table = inputs.pop("price_list", price_list)
        shops: list[Snapshots] = list(inputs.values())
        nothing = pl.LazyFrame(schema=HISTORY_SCHEMA)  # before the first snapshot
        frames = [nothing, *(frame for each in shops for frame in each.frames())]
        history = pl.concat(frames, how="diagonal_relaxed")
        found = price_position(history, table)
        last_read = _last_read(shops)
        metadata = _metadata(history, table, found, last_read, run.context.log.warning)
        return dg.MaterializeResult(value=found, metadata=metadata)

    return position


def _product_histories(histories: Any) -> list[dg.AssetsDefinition]:
    is_one = isinstance(histories, dg.AssetsDefinition | dg.AssetKey | None)
    assets: list[dg.AssetsDefinition] = [histories] if is_one else list(histories)
    for each in assets:
        require_asset(each, "histories")
        if kind_of(each) is not HISTORY_KIND:
            raise ValueError(
                f"{each.key.to_user_string()} is not a product history. Pass an asset built by "
                "build_product_history_asset."
            )
    if not assets:
        raise ValueError("histories is empty. Pass at least one product history.")
    return assets


def _last_read(shops: Sequence[Snapshots]) -> datetime | None:
    """Return the time of the latest snapshot in the histories, or None if unknown."""
    try:
        files = [metadata for each in shops for metadata in each.metadata().values()]
    except dg.Failure:  # other IO managers load rows without file metadata
        return None
    return max((at for each in files for at in read_observed(each)), default=None)


def _metadata(
    history: pl.LazyFrame,
    price_list: pl.DataFrame,
    found: pl.DataFrame,
    last_read: datetime | None,
    warn: Callable[[str], None],
) -> Metadata:
    """Return a position's metadata. Log a warning for each part that cannot be computed."""
    metadata: Metadata = {}

    def numbers() -> Metadata:
        figures = position_figures(found.lazy())
        names = (*STATUSES, UNDERCUT, UNMATCHED, "median_index")
        return {f"octogen/{each}": figures[each] for each in names if figures[each]}

    def tables() -> Metadata:
        by = {
            f"by_{each}": shares_preview(
                price_summary(found, each)
                .sort("pairs", descending=True, maintain_order=True)
                .head(_MAX_SHOWN),
                each,
            )
            for each in ("brand", "category")
            if each in price_list
        }
        # Pages not found come first, since a corrected URL fixes them.
        without = (
            found.filter(pl.col("status") != MATCHED)
            .sort(pl.col("status") != "not_found", maintain_order=True)
            .head(_MAX_SHOWN)
            .with_columns(pl.col("product_url").cast(pl.String))
        )
        return {
            f"octogen/{name}": dg.MetadataValue.md(inline_table(table))
            for name, table in (by | {"unmatched": unmatched_preview(without)}).items()
            if not table.is_empty()
        }

    def pictures() -> Metadata:
        index = price_index(history, price_list, until=last_read)
        shares: Mapping[str, list[float | None]] = {
            "% cheaper than competitors": index["cheaper_percent"].to_list(),
            "% more expensive": index["more_expensive_percent"].to_list(),
        }
        drawn = {
            "price_index": ("The price index", price_index_svg(index)),
            "cheaper_and_more_expensive": ("Shares", lines_svg(index["day"].to_list(), shares)),
        }
        return {
            f"octogen/{name}": dg.MetadataValue.md(inline_svg(*each))
            for name, each in drawn.items()
        }

    for part in (numbers, tables, pictures):
        try:
            metadata |= part()
        except (Exception, pl.exceptions.PanicException) as error:
            warn(f"The position's {part.__name__} cannot be shown: {error}.")
    return metadata
