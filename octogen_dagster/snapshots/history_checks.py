"""The checks of a history: what each product's rows must be to each other, and what is left out."""

import dagster as dg
import polars as pl

from octogen_dagster.frames.history import HISTORY_SCHEMA

HISTORY_CHECKS = {
    "one_current_row": "Each product has one current row at most, the one without an end.",
    "no_overlap": "No two rows of a product are valid at the same time.",
    "no_gap": "A product that changed was there before, and one that reappeared was not.",
}
LEFT_OUT = "nothing_left_out"
LEFT_OUT_DESCRIPTION = "Each snapshot that the last run read is in the history."
LEFT_OUT_ADVICE = (
    "Store the snapshot again without the mistake, with the same fetched_at: the next run puts it "
    "in. forget_snapshot takes it off this list."
)
HISTORY_ADVICE = (
    "Something other than its asset changed the file. Restore it from a backup, or move it away: "
    "the next run begins a new history."
)
_COLUMNS = ("catalog_key", "uuid", "valid_from", "valid_to", "is_current", "change")
_KEY = pl.struct("catalog_key", "uuid").hash()


def is_history(columns: set[str] | None) -> bool:
    """True for the columns of an asset of `build_product_history_asset`."""
    return columns == {*HISTORY_SCHEMA}


def by_product(history: pl.LazyFrame) -> pl.LazyFrame:
    """A history in the order in which its rules compare a row with the one before it."""
    return history.sort(_KEY, "valid_from")


def history_problems() -> list[tuple[str, str, pl.Expr, tuple[str, ...]]]:
    """The checks, what is wrong with a row, the rows of which it is so, and the columns needed."""
    start, end, change = pl.col("valid_from"), pl.col("valid_to"), pl.col("change")
    is_same = (_KEY.shift() == _KEY).fill_null(value=False)
    goes_on = is_same & (start == end.shift()).fill_null(value=False)
    overlaps = is_same & (start < end.shift()).fill_null(value=True)
    should_be = (
        pl.when(goes_on)
        .then(pl.lit("changed"))
        .when(is_same)
        .then(pl.lit("reappeared"))
        .otherwise(pl.lit("appeared"))
    )
    is_second = is_same & pl.col("is_current") & pl.col("is_current").shift()
    problems = (
        ("one_current_row", "a product has a second current row", is_second),
        (
            "one_current_row",
            "is_current does not fit valid_to",
            pl.col("is_current") != end.is_null(),
        ),
        ("no_overlap", "a row begins before the one before it ends", overlaps),
        ("no_overlap", "valid_to is not after valid_from", end <= start),
        ("no_gap", "change does not fit the row before", change != should_be),
    )
    return [(check, name, bad, _COLUMNS) for check, name, bad in problems]


def judge_left_out(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partition: str | None
) -> tuple[bool, str]:
    """Judge whether the last run of a history put all snapshots in; name those it did not."""
    partitions = None if partition is None else [partition]
    wanted = dg.AssetRecordsFilter(asset, asset_partitions=partitions)
    records = instance.fetch_materializations(wanted, limit=1).records
    event = records[0].asset_materialization if records else None
    left_out = event.metadata.get("octogen/left_out") if event else None
    if left_out is None:
        return True, "has each snapshot that was read."
    return False, f"lacks snapshots.\n\n{left_out.value}\n\n"
