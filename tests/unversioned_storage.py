"""Dagster instances in memory that are created without Alembic, which takes most of their time."""

import pytest
from dagster._core.storage.event_log import in_memory as in_memory_events
from dagster._core.storage.runs import in_memory as in_memory_runs


def skip_alembic(patch: pytest.MonkeyPatch) -> None:
    """Do not note the newest migration, for which Alembic imports all migrations each time."""
    for storage in (in_memory_runs, in_memory_events):
        patch.setattr(storage, "stamp_alembic_rev", lambda *_: None)
