"""A read whose pages cannot be saved goes on, and its snapshot is published."""

from __future__ import annotations

import contextlib
import resource
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import ProductSearch, build_products_asset
from tests.promises.paged_service import PagedService
from tests.results import materialized, octogen_at

PAGES = 60
MAX_FILE_BYTES = 40_000
"""Less than a page of `large`, and more than twelve others."""


def shops(*catalogs: str) -> dg.AssetsDefinition:
    search = ProductSearch(catalogs=list(catalogs), page_size=5)
    return build_products_asset("shops", search, retry_policy=None)


BOTH = shops("acme", "zen")


def large(_key: str, page: int, products: list[dict[str, Any]]) -> None:
    products[0]["title"] = secrets.token_hex(100_000)
    if page == PAGES:  # at most two segments are on their way, so one has failed
        unlimited_files()


def large_later(key: str, page: int, products: list[dict[str, Any]]) -> None:
    if page > PAGES // 2:
        large(key, page, products)


@pytest.fixture
def service() -> Iterator[PagedService]:
    with PagedService({"acme": PAGES * 5, "zen": PAGES * 5}).running() as service:
        yield service


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@contextlib.contextmanager
def limited_files() -> Iterator[None]:
    """Let no file of this process grow beyond a size, as on a disk that is full."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, hard))
    try:
        yield
    finally:
        unlimited_files()


def unlimited_files() -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def run(
    service: PagedService,
    folder: Path,
    instance: dg.DagsterInstance,
    asset: dg.AssetsDefinition = BOTH,
) -> dg.ExecuteInProcessResult:
    service.searches.clear()
    return materialized(
        [asset],
        folder,
        octogen_at(service, max_extra_pages_percent=0),
        instance=instance,
        raise_on_error=False,
    )


def rows(folder: Path) -> int:
    return pl.read_parquet(folder / "shops.parquet").height


@pytest.mark.slow
def test_pages_that_were_saved_before_the_disk_was_full_are_not_requested_again(
    service: PagedService, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    def fail_at_the_end(key: str, page: int, products: list[dict[str, Any]]) -> None:
        large_later(key, page, products)
        if page == PAGES:
            products[0]["currentPrice"] = "a lot"

    acme = shops("acme")
    service.change = fail_at_the_end
    with limited_files():
        assert not run(service, tmp_path, instance, acme).success
    service.change = large
    with limited_files():
        assert run(service, tmp_path, instance, acme).success
    assert rows(tmp_path) == PAGES * 5
    first = service.pages_of("acme")[0]
    assert service.pages_of("acme") == list(range(first, PAGES + 1))
    assert 7 < first <= PAGES // 2 + 1  # all of at most two segments of twelve were small
    assert [path.name for path in tmp_path.iterdir()] == ["shops.parquet"]
