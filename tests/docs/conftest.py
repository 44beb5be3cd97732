"""The place in which a block runs, and dbt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from octogen_dagster.sandbox.server import Sandbox
from tests.docs.dbt import install_dbt
from tests.docs.places import CATALOG, Place
from tests.promises.tables.engines import (
    bigquery_server,
    postgres,
    postgres_server,
    snowflake_server,
    warehouse,
)

__all__ = ["bigquery_server", "postgres", "postgres_server", "snowflake_server", "warehouse"]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Yield a local Octogen as a reader starts it."""
    with Sandbox(catalogs={CATALOG: 60}, hub=True) as sandbox:
        sandbox.hub.share(CATALOG)
        yield Place(sandbox)


@pytest.fixture(scope="session")
def dbt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a dbt."""
    return install_dbt(tmp_path_factory.mktemp("dbt"))
