"""Text shared by several commands."""

from __future__ import annotations

from datetime import datetime

DRY_RUN = "Dry run: no changes are made. To apply them, add --apply."
"""The first line of a dry run's output."""


def time_text(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"
