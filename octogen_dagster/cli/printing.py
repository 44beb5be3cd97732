"""Texts that several commands print."""

from __future__ import annotations

from datetime import datetime

DRY_RUN = "Dry run: nothing is changed. Add --apply to make the changes."
"""The first line of a command that only says what it would do."""


def time_text(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"
