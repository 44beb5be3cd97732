"""The rules of a history: for the rows of each product beside each other, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from octogen_dagster.frames.kinds import Check, Rule, Verdict
from octogen_dagster.history.tracking import Tracking

_ADVICE = (
    "Something other than its asset changed the file. Restore it from a backup, or move it away: "
    "the next run begins a new history."
)


def _left_out(subject: str, entries: Mapping[str, Any]) -> Verdict:
    """Judge whether the last run put all snapshots in; name those it did not."""
    left_out = entries.get("octogen/left_out")
    if left_out is None:
        return Verdict(True, f"{subject} has each snapshot that was read.")
    return Verdict(False, f"{subject} lacks snapshots.\n\n{left_out}\n\n")


def history_checks(tracking: Tracking) -> dict[str, Any]:
    """The checks of a history, their rules and the order in which these compare rows."""
    key, row = tracking.hashed, tracking.row
    checks = {
        "one_current_row": f"Each {row} has one current row at most, the one without an end.",
        "no_overlap": f"No two rows of a {row} are valid at the same time.",
        "no_gap": f"A {row} that changed was there before, and one that reappeared was not.",
    }
    start, end, change = pl.col("valid_from"), pl.col("valid_to"), pl.col("change")
    overlaps = tracking.is_same & (start < end.shift()).fill_null(value=True)
    is_second = tracking.is_same & pl.col("is_current") & pl.col("is_current").shift()
    problems = (
        ("one_current_row", f"a {row} has a second current row", is_second),
        (
            "one_current_row",
            "is_current does not fit valid_to",
            pl.col("is_current") != end.is_null(),
        ),
        ("no_overlap", "a row begins before the one before it ends", overlaps),
        ("no_overlap", "valid_to is not after valid_from", end <= start),
        ("no_gap", "change does not fit the row before", change != tracking.change),
    )
    columns = (*tracking.key, "valid_from", "valid_to", "is_current", "change")
    return {
        "checks": {
            **{name: Check(text, _ADVICE) for name, text in checks.items()},
            "nothing_left_out": Check(
                "Each snapshot that the last run read is in the history.",
                "Store the snapshot again without the mistake, with the same fetched_at: the next "
                "run puts it in. forget_snapshot takes it off this list.",
                _left_out,
            ),
        },
        "rules": [Rule(check, name, bad, 0.0, columns) for check, name, bad in problems],
        "in_order": lambda history: history.sort(key, "valid_from"),
    }
