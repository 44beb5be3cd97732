"""Rows that do not come, shown with a shorter patience than that of ten minutes."""

from pathlib import Path

import dagster as dg
import pytest

from octogen_dagster import build_linked_snapshot_asset
from octogen_dagster.bigquery import queries
from tests.projects import Project
from tests.promises.sharing.linked import BIGQUERY, linked
from tests.results import failure, is_retried
from tests.servers.bigquery import BigQueryServer, serving


def test_a_server_that_sends_no_rows_does_not_hold_a_read(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "_SILENCE_TIMEOUT", 0.5)
    server = BigQueryServer(silent="pageToken=2")
    with serving(server, tmp_path):
        snapshot = build_linked_snapshot_asset(linked, retry_policy=dg.RetryPolicy())
        result = project.run([linked, snapshot], resources=BIGQUERY, raise_on_error=False)
    assert "BigQuery sent no rows for job " in failure(result)
    assert is_retried(result)
    assert len(server.inserted) == 1
