"""Fixtures of all tests: a sandbox, the resource that reads it, and a Dagster instance."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from hypothesis import settings

import octogen_dagster as od
from octogen_dagster.api.credentials import API_KEY_VARIABLES
from octogen_dagster.io_source import errors_as_raised
from octogen_dagster.sandbox.app import Generation
from octogen_dagster.sandbox.server import Sandbox
from tests.dg_project import build_wheel
from tests.messages import IS_UPDATE, Golden, GoldenMessages, test_name
from tests.projects import Project
from tests.storage_migrations import read_migrations_once

# Google's library reads it once, when it is imported: without it, it asks another host.
os.environ["NO_GCE_CHECK"] = "true"

# The same examples each time, so that what passed in the gate passes in a clone. The gate itself
# tries random ones. A machine under load is slow; what a property costs is bounded by its examples.
settings.register_profile("fixed", max_examples=40, deadline=None, derandomize=True, database=None)
settings.register_profile("random", settings.get_profile("fixed"), derandomize=False)
settings.load_profile("fixed")


GOLDEN_MESSAGES = pytest.StashKey[GoldenMessages]()


def pytest_configure(config: pytest.Config) -> None:
    """Read the golden messages, which only a single process may write."""
    if IS_UPDATE and (config.getoption("numprocesses", 0) or "PYTEST_XDIST_WORKER" in os.environ):
        raise pytest.UsageError("UPDATE_GOLDEN=1 needs a single process: add -n 0.")
    config.stash[GOLDEN_MESSAGES] = GoldenMessages()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write golden messages if asked to, and check that nothing was skipped."""
    if IS_UPDATE:
        session.config.stash[GOLDEN_MESSAGES].write()
    _fail_if_skipped(session)


def _fail_if_skipped(session: pytest.Session) -> None:
    """Fail a session of `.ci/run` that skipped a test, since the gate installs what tests need."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("OCTOGEN_CI") and reporter and reporter.stats.get("skipped"):
        reporter.write_line(
            "Tests were skipped. Install what they need: the gate allows no skipped test.", red=True
        )
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what is `long` or needs a `world` as `slow`, by which it is left out."""
    if item.get_closest_marker("long") or item.get_closest_marker("world"):
        item.add_marker("slow")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the slow tests that may take longest, so that none is alone at the end."""
    config.stash[GOLDEN_MESSAGES].note_collected(items, config.args)
    items.sort(key=_max_seconds, reverse=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test that has golden messages which it did not compare."""
    yield
    unused = item.config.stash[GOLDEN_MESSAGES].finish(test_name(item))
    assert IS_UPDATE or not unused


def _max_seconds(item: pytest.Item) -> float:
    timeout = item.get_closest_marker("timeout")
    return timeout.args[0] if timeout and item.get_closest_marker("slow") else 0


def pytest_collection() -> None:
    """Collect no garbage while tests are imported: each collection would look at all modules."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Spare garbage collections the objects of imported modules, which stay anyway."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def golden_messages(request: pytest.FixtureRequest) -> GoldenMessages:
    """Return the golden messages of this session."""
    return request.config.stash[GOLDEN_MESSAGES]


@pytest.fixture
def golden(
    golden_messages: GoldenMessages, request: pytest.FixtureRequest, tmp_path: Path
) -> Golden:
    """Return what compares a test's messages with `tests/golden/messages/`."""
    return Golden(golden_messages, test_name(request.node), tmp_path)


@pytest.fixture(autouse=True, scope="session")
def _storage_migrations() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        read_migrations_once(patch)
        yield


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own key and settings out of every test."""
    for name in API_KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in ("HOST", "BASE_URL", "SHOP_HOSTS", "ENV"):
        monkeypatch.delenv(f"OCTOGEN_{name}", raising=False)


@pytest.fixture(autouse=True)
def _errors_of_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a query of Polars 1 raise the errors of its sources, as Polars 2 does by itself.

    What a user of Polars 1 sees is a test of tests/test_relied_on.py.
    """
    if pl.__version__.startswith("1."):
        collect = pl.LazyFrame.collect

        def as_raised(frame: pl.LazyFrame, *arguments: Any, **options: Any) -> Any:
            with errors_as_raised():
                return collect(frame, *arguments, **options)

        monkeypatch.setattr(pl.LazyFrame, "collect", as_raised)


def _plays_the_seed(request: pytest.FixtureRequest) -> bool:
    return request.node.get_closest_marker("seed") is not None


@pytest.fixture
def shops(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Yield a sandbox with two catalogs: today's service, or the older one with the mark `seed`."""
    generation: Generation = "seed" if _plays_the_seed(request) else "current"
    with Sandbox(catalogs={"northpeak": 230, "strada": 120}, generation=generation) as running:
        yield running


@pytest.fixture
def octogen(shops: Sandbox, request: pytest.FixtureRequest) -> od.OctogenResource:
    """Return the resource that reads `shops`."""
    is_seed = _plays_the_seed(request)
    return od.OctogenResource(
        api_key=shops.api_key,
        base_url=shops.base_url,
        attempts=2,
        catalog_source=od.GrantedCatalogs() if is_seed else od.ShopCatalogs(hosts=shops.hosts),
    )


@pytest.fixture
def resources(tmp_path: Path, octogen: od.OctogenResource) -> dict[str, Any]:
    """Return resources that read `shops` and store snapshots below `tmp_path`."""
    return {"octogen": octogen, "io_manager": od.ParquetSnapshotIOManager(base_dir=str(tmp_path))}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """Yield a Dagster instance in memory."""
    with dg.DagsterInstance.ephemeral() as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, instance: dg.DagsterInstance, octogen: od.OctogenResource) -> Project:
    """Return a project that reads `shops`, with its snapshots below `tmp_path`."""
    return Project(tmp_path, instance, octogen)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of the built wheel, which all processes of the tests share."""
    base = tmp_path_factory.getbasetemp()
    return build_wheel(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)
