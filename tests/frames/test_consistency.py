"""Whether the pages of a finished read are of one state of each catalog."""

from __future__ import annotations

import threading

import msgspec
import pytest

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.search import ProductSearch
from octogen_dagster.errors import OctogenPagingError
from octogen_dagster.frames.catalog_read import CatalogRead
from octogen_dagster.frames.consistency import check_unchanged
from octogen_dagster.frames.decode import read_page
from octogen_dagster.frames.io_source import Query
from octogen_dagster.frames.plan import PlannedCatalog
from octogen_dagster.frames.scan import ProductScan
from octogen_dagster.sandbox.server import Sandbox

SEARCH = ProductSearch(catalogs=["northpeak"], page_size=50)


def connection_to(sandbox: Sandbox) -> CatalogService:
    return CatalogService(api_key=ApiKey(sandbox.api_key), base_url=sandbox.base_url)


def pages_served(sandbox: Sandbox) -> int:
    return sum(request.status == 200 for request in sandbox.requests)


def test_a_catalog_that_was_indexed_again_meanwhile_is_an_error(sandbox: Sandbox) -> None:
    connection = connection_to(sandbox)
    catalogs = connection.fetch_catalogs().catalogs
    sandbox.touch("northpeak")  # after the listing: while it is read
    scan = ProductScan(SEARCH, connection, list_catalogs=lambda: catalogs)
    with pytest.raises(
        OctogenPagingError,
        match=r"^Catalog 'northpeak' was indexed again while it was read \(lastIndexedAt was .* "
        r"and is .*\), so its pages may be of two states, .*\. Nothing was published; run it again",
    ):
        scan.frame.collect()


def test_a_catalog_that_is_granted_no_more_is_an_error(sandbox: Sandbox) -> None:
    connection = connection_to(sandbox)
    catalogs = connection.fetch_catalogs().catalogs

    scan = ProductScan(SEARCH, connection, list_catalogs=lambda: catalogs)
    batches = scan._frames(Query(set(), None, None), threading.Event())
    next(batches)
    sandbox.revoke("northpeak")
    with pytest.raises(Exception, match="northpeak"):
        list(batches)


def test_a_catalog_that_stayed_as_it_was_is_listed_once_more(sandbox: Sandbox) -> None:
    scan = ProductScan(ProductSearch(), connection_to(sandbox))
    assert scan.frame.collect().height == 350
    paths = [request.path for request in sandbox.requests]
    assert paths.count("/catalogs") == 2
    assert paths[-1] == "/catalogs"


def test_without_a_stamp_page_1_has_to_be_what_it_was() -> None:
    with Sandbox(catalogs={"northpeak": 230}, generation="current") as sandbox:
        connection = connection_to(sandbox)
        planned = PlannedCatalog("northpeak", SEARCH.request("northpeak"))
        client = BlockingClient(connection)
        page = client.page(planned.request, "It", 1, read_page)
        before = pages_served(sandbox)
        read = CatalogRead(planned)
        read.tracker.page_received(page)
        check_unchanged([read], connection.catalogs, client)  # no later page resembled it
        assert pages_served(sandbox) == before

        read.tracker.may_have_restarted = True
        check_unchanged([read], connection.catalogs, client)
        assert pages_served(sandbox) == before + 1

        read = CatalogRead(planned)
        read.tracker.page_received(
            msgspec.structs.replace(page, uuids=["removed", *page.uuids[1:]])
        )
        read.tracker.may_have_restarted = True
        with pytest.raises(OctogenPagingError, match="has another page 1 than when the read began"):
            check_unchanged([read], connection.catalogs, client)
