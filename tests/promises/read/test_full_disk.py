"""A read whose pages cannot be saved goes on, and its snapshot is published."""

from __future__ import annotations

import resource
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from octogen_dagster import ProductSearch, build_products_asset
from tests.limits import limited
from tests.projects import Project
from tests.promises.paged_service import PagedService
from tests.results import octogen_at

PAGES = 60
MAX_FILE_BYTES = 40_000
"""Less than a page of `large`, and more than twelve others."""


def large(_key: str, page: int, products: list[dict[str, Any]]) -> None:
    products[0]["title"] = secrets.token_hex(100_000)
    if page == PAGES:  # at most two segments are on their way, so one has failed
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def large_later(key: str, page: int, products: list[dict[str, Any]]) -> None:
    if page > PAGES // 2:
        large(key, page, products)


@pytest.fixture
def service() -> Iterator[PagedService]:
    with PagedService({"acme": PAGES * 5}).running() as service:
        yield service


def run(project: Project, service: PagedService) -> bool:
    """Read the catalog where no file may grow beyond a size, as on a disk that is full."""
    service.searches.clear()
    search = ProductSearch(catalogs=["acme"], page_size=5)
    shops = build_products_asset("shops", search, retry_policy=None)
    octogen = octogen_at(service, max_extra_pages_percent=0)
    with limited(resource.RLIMIT_FSIZE, MAX_FILE_BYTES):
        return project.run([shops], octogen, raise_on_error=False).success


@pytest.mark.slow
def test_pages_that_were_saved_before_the_disk_was_full_are_not_requested_again(
    service: PagedService, project: Project
) -> None:
    def fail_at_the_end(key: str, page: int, products: list[dict[str, Any]]) -> None:
        large_later(key, page, products)
        if page == PAGES:
            products[0]["currentPrice"] = "a lot"

    service.change = fail_at_the_end
    assert not run(project, service)
    service.change = large
    assert run(project, service)
    assert len(project.read("shops")) == PAGES * 5
    first = service.pages_of("acme")[0]
    assert service.pages_of("acme") == list(range(first, PAGES + 1))
    assert 7 < first <= PAGES // 2 + 1  # all of at most two segments of twelve were small
    assert [path.name for path in project.folder.iterdir()] == ["shops.parquet"]
