"""What this package relies on and Dagster and Polars do not promise: a test for each, by its name.

A release that breaks one fails here, and not in a user's run. CONTRIBUTING.md has the list. Where a
promised way exists, take it and delete the test.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
import pytest

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
