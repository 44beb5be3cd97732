"""What this package relies on and no library promises: a test for each, by its name.

A release that breaks one fails here, and not in a user's run. CONTRIBUTING.md has the list. Where a
promised way exists, take it and delete the test.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster_gcp import BigQueryResource
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
    BigQueryReadTransport,
)

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


def test_a_client_of_bigquery_opens_one_of_the_storage_read_api_with_its_credentials() -> None:
    credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
    client: Any = bigquery.Client(project="my-project", credentials=credentials)
    with closing(client), closing(client._ensure_bqstorage_client().transport) as transport:
        assert isinstance(transport, BigQueryReadTransport)


class Connection(BigQueryResource):
    def get_object_to_set_on_execution_context(self) -> Any:
        return "a client"


@dg.asset(required_resource_keys={"bigquery"})
def connected(context) -> None:  # type: ignore[no-untyped-def]  # Dagster reads annotations
    assert context.resources.bigquery == "a client"
    assert isinstance(context.resources.original_resource_dict["bigquery"], Connection)


def test_a_context_has_the_resource_that_makes_a_client_of_itself() -> None:
    assert dg.materialize([connected], resources={"bigquery": Connection(project="p")}).success
