"""What this package relies on and Dagster and Polars do not promise: a test for each, by its name.

A release that breaks one fails here, and not in a user's run. CONTRIBUTING.md has the list. Where a
promised way exists, take it and delete the test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from octogen_dagster.demo.run import INSTANCE
from octogen_dagster.python_source import errors_as_raised, python_source


class UnknownError(Exception):
    """An error of a source."""


def failing(*_: object) -> Iterator[pl.DataFrame]:
    yield pl.DataFrame({"number": [1]})
    raise UnknownError("of the second frame")


SCHEMA = pl.Schema({"number": pl.Int64})


def test_register_io_source_raises_what_a_source_raises() -> None:
    with pytest.raises(UnknownError, match="of the second frame"), errors_as_raised():
        python_source(failing, SCHEMA).collect()


def test_a_launcher_executes_runs_in_the_process_of_the_daemon(tmp_path: Path) -> None:
    """The demo names it in its `dagster.yaml`."""
    (tmp_path / "dagster.yaml").write_text(INSTANCE)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert type(instance.run_launcher).__name__ == "SyncInMemoryRunLauncher"
