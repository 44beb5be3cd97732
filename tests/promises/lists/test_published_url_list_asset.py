"""An asset keeps a URL list equal to a table at a service made from the published models."""

from __future__ import annotations

import os
import signal
import unicodedata
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import dagster as dg
import polars as pl
import pytest
from octogen_ai_sdk import models
from octogen_ai_sdk.generated import models as generated
from pydantic import BaseModel, ValidationError

from tests.api.servers import KEY, RawServer, Received, http
from tests.promises.lists.url_list_runs import materialize_list
from tests.published_service import refusal
from tests.results import failure, metadata, octogen_at, stored

ID, MOMENT, MAX_CHARACTERS = "cul_01KZAC9QSY5RWSTZ63FGBS50F2", "2026-08-05T20:14:03Z", 2_048
JUDGES: dict[str, Sequence[type[BaseModel]]] = {
    "": (models.CoverageUrlListCreateRequest, generated.CoverageUrlListCreateRequest),
    "urls": (models.CoverageUrlsRequest, generated.CoverageUrlsRequest),
}


def normal(url: str) -> str:
    return unicodedata.normalize("NFC", url.strip()).lower()


@dataclass
class Service:
    """One list, whose requests both published models judge; each answer has an unknown field.

    It normalizes by letters in lower case, one form of accents and no blanks around a URL, and
    takes a URL that has no other blank.

    Attributes:
        members: The URLs of the list as they were sent, by their normalized forms.
        made: True once the list is there.
        statuses: The status of each time that the list is asked for; the last one stays.
        is_stopped: True if the run is interrupted when it asks for the list.
        received: All requests.
    """

    members: dict[str, str] = field(default_factory=dict)
    made: bool = False
    statuses: list[str] = field(default_factory=lambda: ["active"])
    is_stopped: bool = False
    received: list[Received] = field(default_factory=list)
    base_url: str = ""
    api_key: str = KEY

    @contextmanager
    def running(self) -> Iterator[Service]:
        with RawServer(self._respond, keep_alive=True) as server:
            self.base_url, self.received = server.base_url, server.received
            yield self

    @property
    def calls(self) -> list[str]:
        return [f"{each.method} {self._operation(each.target)}".strip() for each in self.received]

    def _operation(self, target: str) -> str:
        path = urlsplit(target).path.removeprefix("/v1/coverage/url-lists")
        return path.removeprefix(f"/{ID}").strip("/") if path != f"/{ID}" else "list"

    def _respond(self, request: Received) -> list[bytes]:
        operation = self._operation(request.target)
        if request.method == "POST":
            for judge in JUDGES[operation.partition("/")[0]]:
                try:
                    judge.model_validate_json(request.body)
                except ValidationError as error:
                    return http(422, refusal(error))
            if any(len(url) > MAX_CHARACTERS for url in request.json.get("urls", ())):
                return http(422, {"detail": "url_too_long"})
        if self.is_stopped and operation == "list":
            os.kill(os.getpid(), signal.SIGINT)
        query = parse_qs(urlsplit(request.target).query)
        urls = request.json.get("urls", []) if request.body else []
        answers: dict[str, Any] = {
            "GET ": self._lists,
            "POST ": lambda: self._create(request.json["name"]),
            "GET list": lambda: self._list(self.statuses[0]),
            "GET urls": lambda: self._urls(int(query.get("cursor", ["0"])[0])),
            "POST urls": lambda: self._add(urls),
            "POST urls/remove": lambda: self._remove(urls),
            "POST urls/contains": lambda: self._contains(urls),
        }
        answer = answers[f"{request.method} {operation}"]()
        status = 201 if operation == "" and request.method == "POST" else 200
        return http(status, answer.model_dump(mode="json", by_alias=True) | {"newField": [1]})

    def _list(self, status: str) -> generated.CoverageUrlList:
        if len(self.statuses) > 1:
            self.statuses.pop(0)
        big_query = generated.CoverageUrlListBigQuery(
            exchange_id="catalogs_prod",
            listing_id=f"coverage_{ID}_v1",
            shared_dataset_id=f"coverage_share_{ID}_v1",
            view_id="products_current_v1",
            last_exported_at=None,
            last_row_count=None,
            reader_count=0,
        )
        return generated.CoverageUrlList(
            url_list_id=ID,
            name="competitors",
            status=status,
            url_count=len(self.members),
            big_query=None if status == "provisioning" else big_query,
            created_at=MOMENT,
            updated_at=MOMENT,
        )

    def _lists(self) -> generated.CoverageUrlListListResponse:
        items = [self._list(self.statuses[0])] if self.made else []
        return generated.CoverageUrlListListResponse(items=items, next_cursor=None)

    def _create(self, name: str) -> generated.CoverageUrlList:
        assert name == "competitors"
        self.made = True
        return self._list("provisioning")

    def _urls(self, first: int) -> generated.CoverageUrlListUrlsResponse:
        shown = list(self.members.items())[first : first + 100]
        items = [
            generated.CoverageUrlListUrl(url=url, normalized_url=key, added_at=MOMENT)
            for key, url in shown
        ]
        following = str(first + 100) if first + 100 < len(self.members) else None
        return generated.CoverageUrlListUrlsResponse(items=items, next_cursor=following)

    def _add(self, urls: Sequence[str]) -> generated.CoverageUrlMutationResponse:
        for url in urls:
            if " " not in url:
                self.members.setdefault(normal(url), url)
        return self._outcome(urls)

    def _remove(self, urls: Sequence[str]) -> generated.CoverageUrlMutationResponse:
        for url in urls:
            self.members.pop(normal(url), None)
        return self._outcome(urls)

    def _outcome(self, urls: Sequence[str]) -> generated.CoverageUrlMutationResponse:
        accepted = [url for url in urls if " " not in url]
        return generated.CoverageUrlMutationResponse(
            accepted=[
                generated.CoverageAcceptedUrl(url=url.strip(), normalized_url=normal(url))
                for url in accepted
            ],
            rejected=[
                generated.CoverageRejectedUrl(url=url, code="invalid_url", message="It has a blank")
                for url in urls
                if " " in url
            ],
            url_count=len(self.members),
            request_id=str(uuid.uuid4()),
        )

    def _contains(self, urls: Sequence[str]) -> generated.CoverageContainsResponse:
        results = [
            generated.CoverageContainsResult(
                url=url.strip(),
                normalized_url=normal(url),
                present=normal(url) in self.members,
                added_at=MOMENT if normal(url) in self.members else None,
            )
            for url in urls
        ]
        return generated.CoverageContainsResponse(results=results)


@pytest.fixture
def service() -> Iterator[Service]:
    with Service().running() as service:
        yield service


def run(
    service: Service, folder: Path, urls: Sequence[str], **arguments: Any
) -> dg.ExecuteInProcessResult:
    return materialize_list(urls, stored(folder, octogen_at(service)), **arguments)


@pytest.mark.slow
def test_the_list_is_made_filled_and_kept_equal_to_the_table(
    service: Service, tmp_path: Path
) -> None:
    service.statuses = ["provisioning", "active"]
    urls = [f"https://Shop.example/P{number}" for number in range(1_500)]
    odd = ["https://shop.example/a b", f"https://shop.example/{'x' * MAX_CHARACTERS}"]
    first = run(service, tmp_path, [*urls, urls[0].upper(), *odd])
    assert service.calls == ["GET", "POST", "POST urls", "POST urls", "GET list"]
    shown = metadata(first, "competitors")
    names = ("urls", "added", "removed", "rejected", "status", "url_list_id")
    assert [shown[f"octogen/{name}"] for name in names] == [1_500, 1_500, 0, 2, "active", ID]
    table = pl.read_parquet(tmp_path / "competitors.parquet")
    assert table["normalized_url"].to_list() == [
        *(normal(url) for url in [*urls, urls[0]]),
        *(None, None),
    ]
    assert table["rejected_code"].to_list()[-2:] == ["invalid_url", "too_long"]

    del service.received[:]
    second = run(service, tmp_path, [*urls[200:], "https://shop.example/new"])
    assert service.calls == [
        *("GET", "POST urls/contains", "POST urls/contains"),
        *["GET urls"] * 15,
        *("POST urls/remove", "POST urls"),
    ]
    shown = metadata(second, "competitors")
    assert [shown[f"octogen/{name}"] for name in names[:4]] == [1_301, 1, 200, 0]
    assert service.members.keys() == {
        *(normal(url) for url in urls[200:]),
        "https://shop.example/new",
    }


def test_a_status_that_nobody_knows_is_reported_and_ends_the_wait(
    service: Service, tmp_path: Path
) -> None:
    service.statuses = ["provisioning", "resting"]
    result = run(service, tmp_path, ["https://shop.example/1"])
    assert metadata(result, "competitors")["octogen/status"] == "resting"


def test_blanks_around_an_address_make_no_difference(service: Service, tmp_path: Path) -> None:
    urls = ["https://shop.example/1 ", " https://shop.example/1", "\thttps://shop.example/2\r"]
    result = run(service, tmp_path, urls, retry_policy=None)
    assert result.success, failure(result)
    table = pl.read_parquet(tmp_path / "competitors.parquet")
    assert table["url"].to_list() == urls
    assert table["normalized_url"].to_list() == [
        *["https://shop.example/1"] * 2,
        "https://shop.example/2",
    ]
    assert metadata(result, "competitors")["octogen/added"] == 2


def test_a_list_that_is_deleted_while_it_is_provisioned_is_an_error(
    service: Service, tmp_path: Path
) -> None:
    service.statuses = ["provisioning", "delete_pending"]
    result = run(service, tmp_path, ["https://shop.example/1"], retry_policy=None)
    assert f"({ID}) was deleted during this run" in failure(result)


def test_a_run_that_is_stopped_does_not_wait_for_a_new_list(
    service: Service, tmp_path: Path
) -> None:
    service.statuses, service.is_stopped = ["provisioning"], True
    assert not run(service, tmp_path, ["https://shop.example/1"], retry_policy=None).success
    assert service.calls == ["GET", "POST", "POST urls", "GET list"]
