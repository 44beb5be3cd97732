"""The rules of a history: for the rows of each product beside each other, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from octogen_dagster.frames.kinds import Check, Rule, Verdict

_ADVICE = (
    "Something other than its asset changed the file. Restore it from a backup, or move it away: "
    "the next run begins a new history."
)
_COLUMNS = ("catalog_key", "uuid", "valid_from", "valid_to", "is_current", "change")
_KEY = pl.struct("catalog_key", "uuid").hash()


def by_product(history: pl.LazyFrame) -> pl.LazyFrame:
    """A history in the order in which its rules compare a row with the one before it."""
    return history.sort(_KEY, "valid_from")


def _left_out(subject: str, entries: Mapping[str, Any]) -> Verdict:
    """Judge whether the last run put all snapshots in; name those it did not."""
    left_out = entries.get("octogen/left_out")
    if left_out is None:
        return Verdict(True, f"{subject} has each snapshot that was read.")
    return Verdict(False, f"{subject} lacks snapshots.\n\n{left_out}\n\n")


HISTORY_CHECKS = {
    "one_current_row": Check(
        "Each product has one current row at most, the one without an end.", _ADVICE
    ),
    "no_overlap": Check("No two rows of a product are valid at the same time.", _ADVICE),
    "no_gap": Check(
        "A product that changed was there before, and one that reappeared was not.", _ADVICE
    ),
    "nothing_left_out": Check(
        "Each snapshot that the last run read is in the history.",
        "Store the snapshot again without the mistake, with the same fetched_at: the next run puts "
        "it in. forget_snapshot takes it off this list.",
        _left_out,
    ),
}


def _rules() -> list[Rule]:
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
    return [Rule(check, name, bad, 0.0, _COLUMNS) for check, name, bad in problems]


HISTORY_RULES = _rules()
