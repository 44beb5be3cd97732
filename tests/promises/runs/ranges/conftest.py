"""Fixtures of the runs of a range: six catalogs, which the instance knows."""

from collections.abc import Iterator

import dagster as dg
import pytest

from octogen_dagster.sandbox.server import Sandbox
from tests.promises.runs.ranges.helpers import CATALOGS


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(catalogs=dict.fromkeys(CATALOGS, 250), generation="current") as running:
        yield running


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as running:
        running.add_dynamic_partitions("octogen_catalogs", CATALOGS)
        yield running
