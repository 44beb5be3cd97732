"""Checks that find inconsistent rows and left-out snapshots in a history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from octogen_dagster.frames.kinds import Check, Rule, Verdict
from octogen_dagster.history.tracking import Tracking

_ADVICE = (
    "Another program changed the history's file. Restore the file from a backup. To start a new "
    "history instead, move the file to another folder."
)


def _left_out(subject: str, entries: Mapping[str, Any]) -> Verdict:
    left_out = entries.get("octogen/left_out")
    if left_out is None:
        return Verdict(True, f"{subject} contains every snapshot that the last run read.")
    return Verdict(False, f"{subject} is missing snapshots.\n\n{left_out}\n\n")


def history_checks(tracking: Tracking) -> dict[str, Any]:
    """Return the arguments of `TableKind` that define a history's checks."""
    key, row = tracking.hashed, tracking.row
    checks = {
        "one_current_row": f"Each {row} has at most one current row, in which valid_to is null.",
        "no_overlap": f"A {row}'s rows never overlap in time.",
        "no_gap": f"If a {row} changed, its new row starts when its previous row ends. If a {row} "
        "reappeared, there is a gap between the two rows.",
    }
    start, end, change = pl.col("valid_from"), pl.col("valid_to"), pl.col("change")
    overlaps = tracking.is_same & (start < end.shift()).fill_null(value=True)
    is_second = tracking.is_same & pl.col("is_current") & pl.col("is_current").shift()
    problems = (
        ("one_current_row", f"a {row} has a second current row", is_second),
        (
            "one_current_row",
            "is_current does not match valid_to",
            pl.col("is_current") != end.is_null(),
        ),
        ("no_overlap", "a row starts before the previous row ends", overlaps),
        ("no_overlap", "valid_to is not after valid_from", end <= start),
        ("no_gap", "change does not match the previous row", change != tracking.change),
    )
    columns = (*tracking.key, "valid_from", "valid_to", "is_current", "change")
    return {
        "checks": {
            **{name: Check(text, _ADVICE) for name, text in checks.items()},
            "nothing_left_out": Check(
                "The history contains every snapshot that the last run read.",
                "Fix the snapshot and store it again with the same fetched_at. The next run then "
                "adds it. To remove the snapshot from this list instead, call forget_snapshot.",
                _left_out,
            ),
        },
        "rules": [Rule(check, name, bad, 0.0, columns) for check, name, bad in problems],
        "in_order": lambda history: history.sort(key, "valid_from"),
    }
