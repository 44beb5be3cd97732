"""Coverage URL lists: our clients send what the published client sends, and read what it reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import octogen_ai_sdk
import pytest
from hypothesis import given
from hypothesis import strategies as st
from octogen_ai_sdk import models
from octogen_ai_sdk.generated import models as generated
from octogen_ai_sdk.operations import OPERATIONS
from pydantic import BaseModel, ValidationError

from octogen_dagster import OctogenClient
from octogen_dagster.errors import OctogenResponseError
from tests.api.clients import TRANSPORTS, open_client
from tests.api.servers import KEY, RawServer, Received, http
from tests.contract.asked import asked
from tests.contract.test_published_answers import plain
from tests.published import answers, bodies, published, text, unknown_fields, values

ID = "cul_01KZAC9QSY5RWSTZ63FGBS50F2"
ODD_ID = " cul/ü?%20#.. "
URLS = ["https://shop.example/1?utm_source=x", "no address", "", "Größe 靴下"]
MOMENT = "2026-08-05T20:14:03Z"
MAX_CHARACTERS = 2_048
BIG_QUERY = generated.CoverageUrlListBigQuery(
    exchange_id="catalogs_prod",
    listing_id=f"coverage_{ID}_v1",
    shared_dataset_id=f"coverage_share_{ID}_v1",
    view_id="products_current_v1",
    last_exported_at=None,
    last_row_count=None,
    reader_count=1,
)

Call = Callable[[Any], Awaitable[Any]]


class Operation(NamedTuple):
    """A call of either client, and the published models of its answer: generated, by hand."""

    call: Call
    generated: type[BaseModel]
    by_hand: type[BaseModel]


LIST = generated.CoverageUrlList, models.CoverageUrlList
PAGE = generated.CoverageUrlListListResponse, models.CoverageUrlListPage
URLS_PAGE = generated.CoverageUrlListUrlsResponse, models.CoverageUrlListUrlsPage
MUTATION = generated.CoverageUrlMutationResponse, models.CoverageUrlMutationResponse
CONTAINS = generated.CoverageContainsResponse, models.CoverageContainsResponse
OF: dict[str, Operation] = {
    "createUrlList": Operation(
        lambda client: client.create_coverage_url_list(name="Größe / q3"), *LIST
    ),
    "listUrlLists": Operation(lambda client: client.list_coverage_url_lists(), *PAGE),
    "getUrlList": Operation(lambda client: client.get_coverage_url_list(ID), *LIST),
    "deleteUrlList": Operation(lambda client: client.delete_coverage_url_list(ID), *LIST),
    "addUrlListUrls": Operation(
        lambda client: client.add_coverage_url_list_urls(ID, urls=URLS), *MUTATION
    ),
    "removeUrlListUrls": Operation(
        lambda client: client.remove_coverage_url_list_urls(ID, urls=URLS), *MUTATION
    ),
    "checkUrlListUrls": Operation(
        lambda client: client.check_coverage_url_list_urls(ID, urls=URLS), *CONTAINS
    ),
    "listUrlListUrls": Operation(lambda client: client.list_coverage_url_list_urls(ID), *URLS_PAGE),
}
MORE_CALLS: dict[str, Call] = {
    "a page of lists": lambda client: client.list_coverage_url_lists(cursor="a/+ &=ü", limit=7),
    "a page of URLs": lambda client: client.list_coverage_url_list_urls(
        ID, cursor="a/+ &=ü", limit=100
    ),
    "only a limit": lambda client: client.list_coverage_url_list_urls(ID, limit=1),
    "an odd id": lambda client: client.get_coverage_url_list(ODD_ID),
    "an odd id to delete": lambda client: client.delete_coverage_url_list(ODD_ID),
    "the URLs of an odd id": lambda client: client.list_coverage_url_list_urls(ODD_ID),
}


def made(model: type[BaseModel], status: str = "active") -> dict[str, Any]:
    """An answer that is made of the generated models."""
    url_list = generated.CoverageUrlList(
        url_list_id=ID,
        name="q3",
        status=status,
        url_count=2,
        big_query=None if status == "provisioning" else BIG_QUERY,
        created_at=MOMENT,
        updated_at=MOMENT,
    )
    url, normalized = URLS[0], "https://shop.example/1"
    member = {"url": url, "normalized_url": normalized}
    fields: dict[str, Any] = {
        "items": [url_list],
        "next_cursor": None,
        "accepted": [generated.CoverageAcceptedUrl(**member)],
        "rejected": [generated.CoverageRejectedUrl(url="", code="invalid_url", message="No URL")],
        "request_id": "r-1",
        "url_count": 2,
        "results": [generated.CoverageContainsResult(**member, present=False, added_at=None)],
    }
    if model is generated.CoverageUrlListUrlsResponse:
        fields["items"] = [generated.CoverageUrlListUrl(**member, added_at=MOMENT)]
    answer = (
        url_list
        if model is generated.CoverageUrlList
        else model(**{name: fields[name] for name in model.model_fields})
    )
    return answer.model_dump(mode="json", by_alias=True)


def answered(request: Received) -> list[bytes]:
    """Answer a request by its operation."""
    path = urlsplit(request.target).path.removeprefix("/v1/coverage/url-lists").split("/")
    template = "/coverage/url-lists" + "".join(
        "/{urlListId}" if place == 1 else f"/{part}" for place, part in enumerate(path) if place
    )
    operations = {tuple(each): name for name, each in OPERATIONS.items()}
    model = OF[operations[request.method, template]].generated
    return http({"DELETE": 202}.get(request.method, 200), made(model))


def comparable(request: Received) -> tuple[Any, ...]:
    """What a request asks, without the headers."""
    parts = urlsplit(request.target)
    body = json.loads(request.body) if request.body else None
    return request.method, parts.path, sorted(parse_qsl(parts.query)), body


@pytest.mark.parametrize(
    "call", [*(each.call for each in OF.values()), *MORE_CALLS.values()], ids=[*OF, *MORE_CALLS]
)
async def test_each_call_sends_what_the_published_client_sends(call: Call) -> None:
    with RawServer(answered) as server:
        theirs = octogen_ai_sdk.OctogenClient(api_key=KEY, base_url=server.base_url)
        said = [await call(theirs)]
        await theirs.aclose()
        for transport in TRANSPORTS:
            async with open_client(server, transport) as client:
                said.append(await call(client))
    expected, *sent = map(comparable, server.received)
    assert sent == [expected] * len(TRANSPORTS)
    assert {request.headers["authorization"] for request in server.received} == {f"Bearer {KEY}"}
    theirs_said, *ours_said = [each.model_dump(mode="json", by_alias=True) for each in said]
    assert ours_said == [theirs_said] * len(TRANSPORTS)


def test_all_eight_operations_of_the_contract_are_here() -> None:
    assert OF.keys() == {name for name in OPERATIONS if "UrlList" in name}


identity = text.filter(bool)


def of_model(model: type[BaseModel], *, lax: bool) -> st.SearchStrategy[dict[str, Any]]:
    """The answers of a model; each list in them has an id."""
    a_list = answers(generated.CoverageUrlList, {"urlListId": identity}, lax=lax)
    if model is generated.CoverageUrlList:
        return a_list
    fields = {}
    if model is generated.CoverageUrlListListResponse:
        fields["items"] = st.lists(a_list, max_size=2)
    return answers(model, fields, lax=lax)


@pytest.mark.slow
@pytest.mark.parametrize("operation", OF.values(), ids=OF)
@published
@given(data=st.data())
def test_each_answer_that_the_models_accept_is_read_as_they_say(
    operation: Operation, data: st.DataObject
) -> None:
    lax = data.draw(st.booleans())
    content = data.draw(bodies(of_model(operation.generated, lax=lax)))
    theirs = operation.generated.model_validate_json(content)

    ours = asyncio.run(asked(content, operation.call))

    assert plain(ours, said := values(theirs)) == said
    assert unknown_fields(ours) == unknown_fields(theirs)
    if not lax:  # a time that Python cannot say in UTC is None
        again = ours.model_dump_json(by_alias=True)
        assert operation.generated.model_validate_json(again) == theirs
        operation.by_hand.model_validate_json(again)


@pytest.mark.parametrize("name", ["listUrlLists", "listUrlListUrls"])
def test_a_last_page_may_have_no_cursor(name: str) -> None:
    answer = made(OF[name].generated)
    assert answer.pop("nextCursor") is None
    assert asyncio.run(asked(answer, OF[name].call)).next_cursor is None


@pytest.mark.parametrize("operation", OF.values(), ids=OF)
def test_what_no_model_accepts_is_an_error_and_not_an_empty_answer(operation: Operation) -> None:
    for field in made(operation.generated).keys() - {
        *("nextCursor", "requestId", "bigQuery", "createdAt", "updatedAt")
    }:
        answer = made(operation.generated)
        del answer[field]
        with pytest.raises(ValidationError):
            operation.generated.model_validate(answer)
        with pytest.raises(OctogenResponseError, match=f"an invalid field {field}: field required"):
            asyncio.run(asked(answer, operation.call))


def test_a_wrong_entry_of_a_page_is_named() -> None:
    page = made(generated.CoverageUrlListListResponse)
    del page["items"][0]["urlCount"]
    with pytest.raises(OctogenResponseError, match="an invalid field urlCount in item 0"):
        asyncio.run(asked(page, lambda client: client.list_coverage_url_lists()))


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=81).map(
    lambda name: name * (80 if len(name) == 1 else 1)
)


@pytest.mark.slow
@published
@given(names)
def test_a_name_that_is_sent_is_valid(name: str) -> None:
    trimmed = name.strip()
    if sent := sent_by(lambda client: client.create_coverage_url_list(name)):
        assert sent == {"name": trimmed}
        judge(sent, models.CoverageUrlListCreateRequest, generated.CoverageUrlListCreateRequest)
    else:
        with pytest.raises(ValidationError):
            models.CoverageUrlListCreateRequest(name=trimmed)


@pytest.mark.parametrize("number", [0, 1, 2, 1_000, 1_001])
@pytest.mark.parametrize("name", ["addUrlListUrls", "removeUrlListUrls", "checkUrlListUrls"])
def test_as_many_urls_are_sent_as_the_models_accept(number: int, name: str) -> None:
    urls = [f"https://shop.example/{each}/".ljust(MAX_CHARACTERS, "é") for each in range(number)]
    operation = {
        "addUrlListUrls": lambda client: client.add_coverage_url_list_urls(ID, urls),
        "removeUrlListUrls": lambda client: client.remove_coverage_url_list_urls(ID, urls),
        "checkUrlListUrls": lambda client: client.check_coverage_url_list_urls(ID, urls),
    }[name]
    if sent := sent_by(operation):
        judge(sent, models.CoverageUrlsRequest, generated.CoverageUrlsRequest)
    else:
        with pytest.raises(ValidationError):
            models.CoverageUrlsRequest(urls=urls)


def judge(body: Any, *judges: type[BaseModel]) -> None:
    """Fail if a published model refuses a body."""
    for model in judges:
        model.model_validate(body)


def sent_by(call: Callable[[OctogenClient], Awaitable[Any]]) -> Any:
    """The body that a call sends; None if it is refused before."""
    with RawServer(answered) as server:

        async def run() -> None:
            async with open_client(server) as client:
                await call(client)

        try:
            asyncio.run(run())
        except ValueError:
            assert server.received == []
            return None
    (request,) = server.received
    return request.json
