"""The builder of the price position: own prices beside those of competitors."""

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
    checked_own,
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
    own: pl.DataFrame | dg.AssetsDefinition | dg.AssetKey,
    *,
    name: str | dg.AssetSpec | None = None,
    undercut_percent: float = 50,
    unmatched_percent: float = 20,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset: own prices beside those of competitors, as of the last snapshots.

    A row is a row of the own table, with what `octogen_dagster.position.table.price_position` finds
    of its page, which also gives the position on any earlier day. What cannot be matched has a row
    too, and `status` says why.

    The metadata have a sentence, the pairs in which we are dearest, the number of pairs by status,
    such as `octogen/matched` and `octogen/not_found`, the median index, tables by the columns
    `brand` and `category` where the own table has them, a sample of what has no match, and
    pictures of the last thirty days: the price index, and the shares of pairs in which we are
    cheaper and dearer. `build_snapshot_checks` of this asset has the checks `undercut_percent` and
    `unmatched_percent`, which warn; the figures have these names too.

    Args:
        histories: One or several assets of `build_product_history_asset`, of which all catalogs are
            read.
        own: A frame, or an asset (or its key) that is loaded as one, with the columns `sku`,
            `product_url` (a competitor's page, of which a SKU may have several), `own_price`,
            `currency`, and any others, which are kept.
        name: The asset's name or `dagster.AssetSpec`; by default that of the first history, with
            `_position` in place of `_history`.
        undercut_percent: The share of the pairs that match, in percent, in which a competitor may
            be below the own price before the check of this name warns.
        unmatched_percent: The share of the pairs, in percent, that may have no match.
        asset_arguments: Any other argument of `@dagster.asset`. With
            `automation_condition=octogen_dagster.follow_upstream()` the position follows each
            update of a history.

    Raises:
        ValueError: An asset is no history, or there is none; a percentage is not from 0 to 100; or
            a frame lacks a column, or has prices that are no numbers.
        TypeError: What is given is not an asset or a frame.
    """
    given: Any = histories
    is_one = isinstance(given, dg.AssetsDefinition | dg.AssetKey | None)
    of_shops: list[dg.AssetsDefinition] = [given] if is_one else list(given)
    for each in of_shops:
        require_asset(each, "histories")
        if kind_of(each) is not HISTORY_KIND:
            raise ValueError(
                f"{each.key.to_user_string()} is not an asset of build_product_history_asset. Give "
                "the histories of products."
            )
    if not of_shops:
        raise ValueError("histories must have a history at least.")
    if isinstance(own, pl.DataFrame):
        checked_own(own)
    elif not isinstance(own, dg.AssetsDefinition | dg.AssetKey):
        raise TypeError(
            "own must be a polars.DataFrame, or an asset or its dagster.AssetKey, not a "
            f"{type(own).__name__}."
        )
    limits = {UNDERCUT: undercut_percent, UNMATCHED: unmatched_percent}
    for check, percent in limits.items():
        require_percent(check, percent)
    default = f"{of_shops[0].key.path[-1].removesuffix('_history')}_position"
    ins = {f"history_{place}": all_partitions(each) for place, each in enumerate(of_shops, 1)}
    if not isinstance(own, pl.DataFrame):
        ins["own"] = dg.AssetIn(own if isinstance(own, dg.AssetKey) else own.key)

    @snapshot_asset(
        {
            "ins": ins,
            "description": (
                "Own prices beside those of competitors in "
                f"{', '.join(each.key.to_user_string() for each in of_shops)}. A row is a SKU and "
                "a page of a competitor."
            ),
        },
        asset_arguments_of(name or default, asset_arguments),
        loads={"own": pl.DataFrame},
        kind=replace(POSITION_KIND, checks=position_checks(limits)),
    )
    def position(
        run: SnapshotRun, _partition: str | None, **inputs: Any
    ) -> dg.MaterializeResult[pl.DataFrame]:
        table = inputs.pop("own", own)
        shops: list[Snapshots] = list(inputs.values())
        nothing = pl.LazyFrame(schema=HISTORY_SCHEMA)  # as before the first snapshot
        frames = [nothing, *(frame for each in shops for frame in each.frames())]
        history = pl.concat(frames, how="diagonal_relaxed")
        found = price_position(history, table)
        last_read = _last_read(shops)
        metadata = _metadata(history, table, found, last_read, run.context.log.warning)
        return dg.MaterializeResult(value=found, metadata=metadata)

    return position


def _last_read(shops: Sequence[Snapshots]) -> datetime | None:
    """When the last snapshot in the histories was read; None if it is not known."""
    try:
        files = [metadata for each in shops for metadata in each.metadata().values()]
    except dg.Failure:  # another IO manager loads rows without the metadata of a file
        return None
    return max((at for each in files for at in read_observed(each)), default=None)


def _metadata(
    history: pl.LazyFrame,
    own: pl.DataFrame,
    found: pl.DataFrame,
    last_read: datetime | None,
    warn: Callable[[str], None],
) -> Metadata:
    """What is shown of a position. What fails is left out, with a warning."""
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
            if each in own
        }
        # Those that were not found come first: they can be mended.
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
        index = price_index(history, own, until=last_read)
        shares: Mapping[str, list[float | None]] = {
            "% cheaper than competitors": index["cheaper_percent"].to_list(),
            "% dearer": index["dearer_percent"].to_list(),
        }
        drawn = {
            "price_index": ("The price index", price_index_svg(index)),
            "cheaper_and_dearer": ("Shares", lines_svg(index["day"].to_list(), shares)),
        }
        return {
            f"octogen/{name}": dg.MetadataValue.md(inline_svg(*each))
            for name, each in drawn.items()
        }

    for part in (numbers, tables, pictures):
        try:
            metadata |= part()
        except (Exception, pl.exceptions.PanicException) as error:
            warn(f"The {part.__name__} of the position cannot be shown: {error}.")
    return metadata
