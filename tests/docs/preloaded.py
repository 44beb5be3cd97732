"""What each process of a reader does, done once in the fork server that they are forked from."""

from __future__ import annotations

import dagster as dg
import h11  # noqa: F401
import httpcore  # noqa: F401
import httpx  # noqa: F401
import pytest

import octogen_dagster
from octogen_dagster.api import blocking  # noqa: F401
from tests.docs.readers import load_component
from tests.storage_migrations import read_migrations_once

EMPTY = "type: octogen_dagster.components.OctogenComponent\nattributes: {}\n"

for name in octogen_dagster.__all__:
    getattr(octogen_dagster, name)
read_migrations_once(pytest.MonkeyPatch())
QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
with dg.DagsterInstance.ephemeral() as empty:
    dg.materialize([dg.asset(lambda: None, name="none")], instance=empty, run_config=QUIET)
with load_component(EMPTY):
    pass
