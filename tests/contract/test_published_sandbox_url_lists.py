"""The published client works with the URL lists of the sandbox, by all eight operations.

Each answer has exactly the fields of the published models.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from octogen_ai_sdk import OctogenAPIError, OctogenClient
from octogen_ai_sdk.generated import models
from octogen_ai_sdk.operations import OPERATIONS
from pydantic import BaseModel, ValidationError

from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.promises.sandbox.sandbox_calls import connect

LISTS = "/coverage/url-lists"
URLS = [f"https://www.northpeak.example/products/mug-{number}" for number in range(7)]
ANSWERS: dict[str, type[BaseModel]] = {
    "createUrlList": models.CoverageUrlList,
    "listUrlLists": models.CoverageUrlListListResponse,
    "getUrlList": models.CoverageUrlList,
    "deleteUrlList": models.CoverageUrlList,
    "addUrlListUrls": models.CoverageUrlMutationResponse,
    "removeUrlListUrls": models.CoverageUrlMutationResponse,
    "checkUrlListUrls": models.CoverageContainsResponse,
    "listUrlListUrls": models.CoverageUrlListUrlsResponse,
}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(catalogs=1, products=1, url_list_seconds=0) as running:
        yield running


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[OctogenClient]:
    async with OctogenClient(api_key=sandbox.api_key, base_url=sandbox.base_url) as connected:
        yield connected


def test_all_operations_are_tried() -> None:
    assert ANSWERS.keys() == {name for name in OPERATIONS if "UrlList" in name}


async def test_each_answer_has_the_fields_of_the_models(sandbox: Sandbox) -> None:
    seen: set[str] = set()

    async def judge(response: httpx.Response) -> None:
        path = response.url.path.removeprefix("/v1").replace(list_id or "none", "{urlListId}")
        for name, model in ANSWERS.items():
            if (OPERATIONS[name].method, OPERATIONS[name].path) == (response.request.method, path):
                judged = model.model_validate_json(await response.aread(), extra="forbid")
                assert judged.model_fields_set == type(judged).model_fields.keys()
                seen.add(name)

    list_id = ""
    hooks: dict[str, list[Any]] = {"response": [judge]}
    async with httpx.AsyncClient(event_hooks=hooks) as http:
        client = OctogenClient(api_key=sandbox.api_key, base_url=sandbox.base_url, http_client=http)
        made = await client.create_coverage_url_list(name=" q3 ")
        list_id = made.url_list_id
        assert (made.name, made.status, made.big_query) == ("q3", "provisioning", None)
        added = await client.add_coverage_url_list_urls(list_id, urls=[*URLS, "no url"])
        assert [each.url for each in added.accepted] == URLS
        assert [each.code for each in added.rejected] == ["invalid_url"]
        removed = await client.remove_coverage_url_list_urls(list_id, urls=[URLS[0], "no url"])
        assert (len(removed.accepted), len(removed.rejected), removed.url_count) == (1, 1, 6)
        checked = await client.check_coverage_url_list_urls(list_id, urls=URLS[:2])
        assert [each.present for each in checked.results] == [False, True]
        first = await client.list_coverage_url_list_urls(list_id, limit=4)
        second = await client.list_coverage_url_list_urls(list_id, cursor=first.next_cursor)
        assert [each.url for page in (first, second) for each in page.items] == URLS[1:]
        assert second.next_cursor is None
        there = await client.get_coverage_url_list(list_id)
        assert (there.status, there.url_count) == ("active", 6)
        assert there.big_query is not None
        assert there.big_query.listing_id == f"coverage_{list_id}_v1"
        assert [each.url_list_id for each in (await client.list_coverage_url_lists()).items] == [
            list_id
        ]
        deleted = await client.delete_coverage_url_list(list_id)
        assert deleted.status == "delete_pending"
    assert seen == ANSWERS.keys()


async def refused(call: Any) -> tuple[int | None, Any]:
    """The status and the detail with which a call is refused."""
    with pytest.raises(OctogenAPIError) as caught:
        await call
    return caught.value.status_code, caught.value.detail


@pytest.mark.slow
async def test_each_error_of_the_contract(sandbox: Sandbox, client: OctogenClient) -> None:
    ids = [
        (await client.create_coverage_url_list(name=f"list {number}")).url_list_id
        for number in range(5)
    ]
    again = client.create_coverage_url_list(name="list 0")
    assert await refused(again) == (409, "url_list_name_conflict")
    sixth = client.create_coverage_url_list(name="list 5")
    assert await refused(sixth) == (409, "url_list_limit_exceeded")
    for number in range(100):
        batch = [f"https://a.example/{number}/{place}" for place in range(1000)]
        added = await client.add_coverage_url_list_urls(ids[0], urls=batch)
    assert added.url_count == 100_000
    more = client.add_coverage_url_list_urls(ids[0], urls=[batch[0], "https://a.example/more"])
    assert await refused(more) == (409, "list_url_capacity_exceeded")
    same = await client.add_coverage_url_list_urls(ids[0], urls=[batch[0], "http://A.example/0/0/"])
    assert same.url_count == 100_000
    page = await client.list_coverage_url_list_urls(ids[0], limit=1)
    await client.remove_coverage_url_list_urls(ids[0], urls=[page.items[0].url])
    for cursor in (page.next_cursor, "unheard of", ""):
        stale = client.list_coverage_url_list_urls(ids[0], cursor=cursor)
        assert await refused(stale) == (400, "invalid_cursor")
    stale_page = client.list_coverage_url_lists(cursor=page.next_cursor)
    assert await refused(stale_page) == (400, "invalid_cursor")
    unknown = client.get_coverage_url_list("cul_none")
    assert await refused(unknown) == (404, "url_list_not_found")
    for status, detail in ((409, "url_list_migrating"), (503, "url_lists_unavailable")):
        path = f"{LISTS}/{ids[1]}/urls"
        sandbox.inject(Fault("status", status, path=path, detail=detail, times=1))
        passing = client.add_coverage_url_list_urls(ids[1], urls=URLS)
        assert await refused(passing) == (status, detail)
    assert (await client.add_coverage_url_list_urls(ids[1], urls=URLS)).url_count == 7


async def test_a_list_that_is_being_deleted_is_read_and_not_changed() -> None:
    with Sandbox(catalogs=1, products=1, url_list_seconds=math.inf) as sandbox:
        client = OctogenClient(api_key=sandbox.api_key, base_url=sandbox.base_url)
        async with client:
            list_id = (await client.create_coverage_url_list(name="q3")).url_list_id
            await client.add_coverage_url_list_urls(list_id, urls=URLS)
            assert (await client.get_coverage_url_list(list_id)).status == "provisioning"
            deleted = await client.delete_coverage_url_list(list_id)
            assert await client.delete_coverage_url_list(list_id) == deleted
            for change in (client.add_coverage_url_list_urls, client.remove_coverage_url_list_urls):
                assert await refused(change(list_id, urls=URLS)) == (409, "url_list_deleting")
            check = await client.check_coverage_url_list_urls(list_id, urls=URLS)
            assert all(each.present for each in check.results)
            assert len((await client.list_coverage_url_list_urls(list_id)).items) == 7
            heir = await client.create_coverage_url_list(name="q3")  # the name is free at once
            both = await client.list_coverage_url_lists()
            assert [each.url_list_id for each in both.items] == [heir.url_list_id, list_id]
            sandbox.next_day()
            [left] = (await client.list_coverage_url_lists()).items
            assert (left.url_list_id, left.status) == (heir.url_list_id, "active")
            gone = client.delete_coverage_url_list(list_id)
            assert await refused(gone) == (404, "url_list_not_found")


BODIES: list[tuple[str, type[BaseModel], Any]] = [
    ("", models.CoverageUrlListCreateRequest, body)
    for body in ({}, {"name": None}, {"name": "q", "more": 1}, {"name": "x" * 80}, {"name": "ä"})
] + [
    (path, models.CoverageUrlsRequest, body)
    for path in ("/urls", "/urls/remove", "/urls/contains")
    for body in ({}, {"urls": None}, {"urls": [1]}, {"urls": URLS, "more": 1}, {"urls": ["", "x"]})
]


@pytest.mark.parametrize(("path", "model", "body"), BODIES)
def test_a_body_is_refused_as_by_the_models(
    sandbox: Sandbox, path: str, model: type[BaseModel], body: Any
) -> None:
    with connect(sandbox) as client:
        list_id = client.post(LISTS, json={"name": "mine"}).json()["urlListId"]
        status = client.post(f"{LISTS}/{list_id}{path}" if path else LISTS, json=body).status_code
    try:
        model.model_validate(body)
    except ValidationError:
        assert status == 422
    else:
        assert status in (200, 201)


@pytest.mark.parametrize(
    "refuse",
    [
        lambda c, i: c.post(LISTS, json={"name": "x" * 81}),
        lambda c, i: c.post(LISTS, json={"name": "  "}),
        lambda c, i: c.post(f"{LISTS}/{i}/urls", json={"urls": []}),
        lambda c, i: c.post(f"{LISTS}/{i}/urls", json={"urls": ["https://a.example/a"] * 1001}),
        lambda c, i: c.post(
            f"{LISTS}/{i}/urls", json={"urls": ["https://a.example/" + "a" * 2031]}
        ),
        lambda c, i: c.get(f"{LISTS}/{i}/urls", params={"limit": 101}),
        lambda c, i: c.get(LISTS, params={"limit": 0}),
    ],
)
def test_what_is_beyond_a_limit_is_refused(
    sandbox: Sandbox, refuse: Callable[[httpx.Client, str], httpx.Response]
) -> None:
    with connect(sandbox) as client:
        list_id = client.post(LISTS, json={"name": "mine"}).json()["urlListId"]
        assert refuse(client, list_id).status_code == 422
        longest = {"urls": ["https://a.example/" + "a" * 2030] * 1000}
        assert client.post(f"{LISTS}/{list_id}/urls", json=longest).json()["urlCount"] == 1
