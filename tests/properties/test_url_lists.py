"""A URL list ends equal to its table, wherever runs are killed and however two of them interleave.

The service is a set with a normalization of its own. It takes three addresses in a request, and its
lists have a limit that the table just fits. Its answers spell the addresses as they were sent or in
another way, may leave out those that it rejects, and its pages may overlap. Each request of a run
is carried out or not, and its answer arrives or not; a run that got none repeats it, as the client
does, or fails or dies.
"""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import dagster as dg
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octogen_dagster import errors
from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.service import Service
from octogen_dagster.api.url_lists import (
    CoverageAcceptedUrl,
    CoverageContainsResponse,
    CoverageContainsResult,
    CoverageRejectedUrl,
    CoverageUrlList,
    CoverageUrlListPage,
    CoverageUrlListUrl,
    CoverageUrlListUrlsPage,
    CoverageUrlMutationResponse,
)
from octogen_dagster.url_lists import sync
from octogen_dagster.url_lists.sync import UrlListSync, create_url_list, find_url_list

NAME, PAGE, INVALID = "q3", 2, "invalid_url"
Action = Literal["answer", "lose", "repeat", "kill before", "kill after"]
FAILURES: list[Action] = ["lose", "repeat", "kill before", "kill after"]
Cursors = Literal["offset", "strict", "serial"]
Echo = Literal["sent", "upper", "normalized", "unknown"]


@pytest.fixture(autouse=True, scope="module")
def _small_requests() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sync, "MAX_URLS_PER_REQUEST", 3)
        yield


def normalized(url: str) -> str | None:
    """What this service makes of an address: nothing but the host's first label and the path."""
    parts = urlsplit(url)
    if not parts.hostname or "." not in parts.hostname:
        return None
    return f"{parts.hostname.removeprefix('www.')}{parts.path.rstrip('/')}".upper()


def error(
    kind: type[errors.OctogenUrlListError], status: int, code: str
) -> errors.OctogenUrlListError:
    return kind(code, httpx.Response(status), code)


@dataclass
class Lists:
    """The service.

    Attributes:
        cursors: Offsets, stale once a list was changed, or last members.
        capacity: The addresses that a list may have.
        echo: How answers spell the addresses that were sent.
        echoes_duplicates: True if each spelling of a member is in an answer.
        names_rejected: True if what is rejected is in an answer.
        repeats: True if a page begins with the last member of the page before.
    """

    cursors: Cursors = "strict"
    capacity: int = 100
    echo: Echo = "sent"
    echoes_duplicates: bool = True
    names_rejected: bool = True
    repeats: bool = False
    members: dict[str, dict[str, int]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    changes: int = 0

    @property
    def wanted(self) -> set[str]:
        (members,) = self.members.values()
        return set(members)

    def as_list(self, list_id: str) -> CoverageUrlList:
        count = len(self.members[list_id])
        return CoverageUrlList(
            url_list_id=list_id, name=self.names[list_id], status="active", url_count=count
        )

    def create(self, name: str) -> CoverageUrlList:
        if name in self.names.values():
            raise error(errors.OctogenUrlListNameConflictError, 409, "url_list_name_conflict")
        list_id = f"cul_{len(self.names)}"
        self.names[list_id], self.members[list_id] = name, {}
        return self.as_list(list_id)

    def lists(self) -> CoverageUrlListPage:
        return CoverageUrlListPage(items=[self.as_list(each) for each in self.names])

    def get(self, list_id: str) -> CoverageUrlList:
        if list_id not in self.members:
            raise error(errors.OctogenUrlListNotFoundError, 404, "url_list_not_found")
        return self.as_list(list_id)

    def add(self, list_id: str, urls: Sequence[str]) -> CoverageUrlMutationResponse:
        members = self.members[list_id]
        new = {key for url in urls if (key := normalized(url))} - members.keys()
        if len(members) + len(new) > self.capacity:
            raise error(errors.OctogenUrlListCapacityError, 409, "list_url_capacity_exceeded")
        for url in urls:
            if (key := normalized(url)) in new:
                self.changes += 1
                members.setdefault(str(key), self.changes)
        return self._outcome(list_id, urls)

    def remove(self, list_id: str, urls: Sequence[str]) -> CoverageUrlMutationResponse:
        for url in urls:
            # What was normalized is not to change if it is normalized again.
            key = url if url in self.members[list_id] else normalized(url)
            self.changes += self.members[list_id].pop(key or "", None) is not None
        return self._outcome(list_id, urls)

    def _outcome(self, list_id: str, urls: Sequence[str]) -> CoverageUrlMutationResponse:
        accepted = {url: key for url in urls if (key := normalized(url))}
        if not self.echoes_duplicates:  # of each member once, as it was sent last
            accepted = {url: key for key, url in {k: u for u, k in accepted.items()}.items()}
        rejected = [url for url in urls if self.names_rejected and normalized(url) is None]
        return CoverageUrlMutationResponse(
            accepted=[
                CoverageAcceptedUrl(url=self._spelled(url), normalized_url=key)
                for url, key in accepted.items()
            ],
            rejected=[
                CoverageRejectedUrl(url=self._spelled(url), code=INVALID, message="It is none.")
                for url in rejected
            ],
            url_count=len(self.members[list_id]),
        )

    def _spelled(self, url: str) -> str:
        spellings = {
            "sent": url,
            "upper": url.upper(),
            "normalized": normalized(url) or url,
            "unknown": f"<{url}>",
        }
        return spellings[self.echo]

    def contains(self, list_id: str, urls: Sequence[str]) -> CoverageContainsResponse:
        """Say nothing of what is no address, if addresses are spelled as they were sent."""
        members = self.members[list_id]
        results = [
            CoverageContainsResult(
                url=self._spelled(url),
                normalized_url=normalized(url) or url,
                present=normalized(url) in members,
            )
            for url in urls
            if normalized(url) or self.echo != "sent"
        ]
        return CoverageContainsResponse(results=results)

    def urls(self, list_id: str, cursor: str | None) -> CoverageUrlListUrlsPage:
        members = self.members[list_id]
        keys, first = list(members), 0
        if cursor:
            state, _, last = cursor.partition(" ")
            stale = {
                "offset": False,
                "strict": int(state) != self.changes,
                "serial": int(last) not in members.values(),
            }
            if stale[self.cursors]:
                raise error(errors.OctogenUrlListError, 400, "invalid_cursor")
            places = list(members.values())
            first = int(last) if self.cursors == "offset" else 1 + places.index(int(last))
        shown = keys[max(first - self.repeats, 0) : first + PAGE]
        following = None
        if first + PAGE < len(keys):
            last = str(first + PAGE if self.cursors == "offset" else members[shown[-1]])
            following = f"{self.changes} {last}"
        items = [CoverageUrlListUrl(url=key, normalized_url=key) for key in shown]
        return CoverageUrlListUrlsPage(items=items, next_cursor=following)


class Killed(BaseException):
    """The process of a run ends."""


class Client(BlockingClient):
    """A client of the lists, whose requests a test lets go one by one."""

    def __init__(self, lists: Lists, act: Callable[[], Action]) -> None:
        super().__init__(Service(api_key=ApiKey("octo_live_test"), base_url="https://x.example/v1"))
        self._lists = lists
        self._act = act

    def _request(self, answer: Callable[..., Any], *arguments: Any) -> Any:
        while True:
            action = self._act()
            if action == "kill before":
                raise Killed
            try:
                answered = answer(*arguments)
            finally:
                if action == "kill after":
                    raise Killed
                if action == "lose":
                    raise errors.OctogenConnectionError("There was no answer.")
            if action == "answer":
                return answered

    def create_coverage_url_list(self, name: str) -> CoverageUrlList:
        made: CoverageUrlList = self._request(self._lists.create, name)
        return made

    def list_coverage_url_lists(self, **_: Any) -> CoverageUrlListPage:
        page: CoverageUrlListPage = self._request(self._lists.lists)
        return page

    def get_coverage_url_list(self, url_list_id: str) -> CoverageUrlList:
        found: CoverageUrlList = self._request(self._lists.get, url_list_id)
        return found

    def add_coverage_url_list_urls(self, url_list_id: str, urls: Sequence[str]) -> Any:
        return self._request(self._lists.add, url_list_id, urls)

    def remove_coverage_url_list_urls(self, url_list_id: str, urls: Sequence[str]) -> Any:
        return self._request(self._lists.remove, url_list_id, urls)

    def check_coverage_url_list_urls(self, url_list_id: str, urls: Sequence[str]) -> Any:
        return self._request(self._lists.contains, url_list_id, urls)

    def list_coverage_url_list_urls(
        self, url_list_id: str, *, cursor: str | None = None, limit: int | None = None
    ) -> Any:
        return self._request(self._lists.urls, url_list_id, cursor)


def bring(
    client: BlockingClient,
    table: Sequence[str],
    check_removal: Callable[[int, int], None] = lambda _removed, _of: None,
) -> UrlListSync:
    found = find_url_list(client, NAME) or create_url_list(client, NAME)
    brought = UrlListSync(client, found, table)
    brought.synchronize(check_removal)
    return brought


class Run:
    """A run in a thread, which stops before each request until the test says how that goes."""

    def __init__(self, lists: Lists, table: Sequence[str]) -> None:
        self._at_request: queue.Queue[bool] = queue.Queue()
        self._actions: queue.Queue[Action] = queue.Queue()
        self.brought: UrlListSync | None = None

        def work() -> None:
            try:
                self.brought = bring(Client(lists, act), table)
            except (errors.OctogenError, Killed):
                pass
            finally:
                self._at_request.put(False)

        def act() -> Action:
            self._at_request.put(True)
            return self._actions.get()

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()
        self.is_at_request = self._at_request.get()

    def go(self, action: Action) -> None:
        self._actions.put(action)
        self.is_at_request = self._at_request.get()


def spelled(chance: random.Random, paths: Sequence[str]) -> list[str]:
    """Addresses of pages, of which some are the same in two spellings, and some are none."""
    urls = []
    for path in paths:
        for host in chance.sample(["shop.example", "www.shop.example"], chance.choice([1, 1, 2])):
            urls.append(f"https://{host}/{path}{chance.choice(['', '/'])}")
    urls += chance.sample(["nothing", "https://shop/1"], chance.randrange(3))
    chance.shuffle(urls)
    return urls


class Case:
    """A table, and lists of which one may have other addresses."""

    def __init__(self, seed: int, answers: Mapping[str, Any]) -> None:
        self.chance = chance = random.Random(seed)
        pages = [f"p{number}" for number in range(24)]
        kept = chance.sample(pages, 10)
        capacity = chance.choice([10, 20])
        self.table = spelled(chance, kept)
        self.expected = {key for url in self.table if (key := normalized(url))}
        self.lists = Lists(capacity=capacity, **answers)
        if chance.random() < 0.8:
            before = chance.sample(pages, chance.randrange(capacity + 1))
            list_id = self.lists.create(NAME).url_list_id
            self.lists.add(list_id, [f"https://shop.example/{page}" for page in before])

    def check(self, brought: UrlListSync) -> None:
        """Check the list at the end of a run that succeeded, and what the run says of it."""
        assert self.lists.wanted == self.expected == brought.wanted()
        rejected = {url for url in self.table if normalized(url) is None}
        code = INVALID if self.lists.names_rejected else "no_answer"
        assert {url: each.code for url, each in brought.rejected.items()} == dict.fromkeys(
            rejected, code
        )
        assert {url: brought.normalized[url] for url in self.table if url not in rejected} == {
            url: normalized(url) for url in self.table if url not in rejected
        }

    def run_alone(self) -> None:
        before = {key for members in self.lists.members.values() for key in members}

        def check_removal(removed: int, of: int) -> None:
            assert (removed, of) == (len(before - self.expected), len(before))

        self.check(bring(Client(self.lists, lambda: "answer"), self.table, check_removal))


CASES = given(
    seed=st.integers(0, 2**32),
    answers=st.fixed_dictionaries(
        {
            "cursors": st.sampled_from(get_args(Cursors)),
            "echo": st.sampled_from(get_args(Echo)),
            "echoes_duplicates": st.booleans(),
            "names_rejected": st.booleans(),
            "repeats": st.booleans(),
        }
    ),
)


@pytest.mark.slow
@settings(max_examples=150)
@CASES
def test_the_list_ends_equal_to_the_table_however_two_runs_are_killed(
    seed: int, answers: Mapping[str, Any]
) -> None:
    case = Case(seed, answers)
    chance, runs, ended = case.chance, list[Run](), 0
    while ended < 6:
        if len(runs) < 2:
            runs.append(Run(case.lists, case.table))
        run = chance.choice(runs)
        for _ in range(chance.choice([1, 3, 10, 30])):  # the other one sleeps
            if run.is_at_request:
                is_failing = ended < 4 and chance.random() < 0.1
                run.go(chance.choice(FAILURES) if is_failing else "answer")
        if not run.is_at_request:
            runs.remove(run)
            ended += 1
            if run.brought:
                case.check(run.brought)
    for run in runs:
        run.go("kill before")
    case.run_alone()


@pytest.mark.slow
@settings(max_examples=15)
@CASES
def test_a_run_is_mended_by_the_next_one_at_whichever_request_it_is_killed(
    seed: int, answers: Mapping[str, Any]
) -> None:
    for action in FAILURES:
        number = 0
        while True:
            case = Case(seed, answers)
            run = Run(case.lists, case.table)
            for _ in range(number):
                run.go("answer")
            if not run.is_at_request:
                break
            run.go(action)
            while run.is_at_request:
                run.go("answer")
            if action == "repeat":  # as the client does by itself
                assert run.brought
                case.check(run.brought)
            case.run_alone()
            number += 1


def test_members_that_a_run_missed_are_found_by_the_count() -> None:
    """With cursors that are offsets, members move up to places that were read before."""
    table = ["https://shop.example/p1", "https://shop.example/p2"]
    lists = Lists("offset")
    list_id = lists.create(NAME).url_list_id
    lists.add(list_id, [f"https://other.example/p{number}" for number in range(8)])
    one, other = Run(lists, table), Run(lists, table)
    for run, requests in ((one, 3), (other, 7)):  # to its first page; to its first removal
        for _ in range(requests):
            run.go("answer")
    assert len(lists.wanted) == 5
    while one.is_at_request:
        one.go("answer")
    assert one.brought
    assert lists.wanted == {normalized(url) for url in table}
    other.go("kill before")


def test_a_list_that_others_change_meanwhile_is_compared_again() -> None:
    table = [f"https://shop.example/p{number}" for number in range(6)]
    lists = Lists()
    list_id = lists.create(NAME).url_list_id
    lists.add(list_id, [f"https://other.example/p{number}" for number in range(6)])
    changes = 0

    def change_at(number: int) -> Callable[[], Action]:
        """Let another program add an address while a page of the list is on its way."""
        asked = 0

        def act() -> Action:
            nonlocal asked, changes
            asked += 1
            if asked >= number and changes < limit:
                changes += 1
                lists.add(list_id, [f"https://other.example/more{changes}"])
            return "answer"

        return act

    limit = 100
    with pytest.raises(errors.OctogenError, match=r"'q3' \(cul_0\) .* each of 3 attempts"):
        bring(Client(lists, change_at(3)), table)
    limit = changes + 1
    brought = bring(Client(lists, change_at(5)), table)
    assert changes == limit
    assert lists.wanted == brought.wanted() == {normalized(url) for url in table}


def test_what_would_remove_too_much_is_refused_before_anything_is_sent() -> None:
    lists = Lists()
    lists.add(lists.create(NAME).url_list_id, [f"https://shop.example/p{n}" for n in range(10)])
    before, client = lists.wanted, Client(lists, lambda: "answer")
    (url_list,) = lists.lists().items
    asked: list[tuple[int, int]] = []

    def refuse(removed: int, of: int) -> None:
        asked.append((removed, of))
        raise dg.Failure

    brought = UrlListSync(client, url_list, ["https://shop.example/p1", "https://shop.example/new"])
    with pytest.raises(dg.Failure):
        brought.synchronize(refuse)
    assert asked == [(9, 10)]
    assert lists.wanted == before
    UrlListSync(client, url_list, []).synchronize(refuse)
    assert lists.wanted == before


def test_a_response_about_other_urls_fails_before_the_list_is_changed() -> None:
    class Confused(Lists):
        def contains(self, list_id: str, urls: Sequence[str]) -> CoverageContainsResponse:
            answer = super().contains(list_id, urls)
            return answer.model_copy(update={"results": answer.results[:1]})

    lists = Confused(echo="upper")
    lists.add(lists.create(NAME).url_list_id, ["https://other.example/1"])
    before = lists.wanted
    with pytest.raises(errors.OctogenError, match=r"'q3' \(cul_0\) could not be compared"):
        bring(Client(lists, lambda: "answer"), ["https://shop.example/1", "https://shop.example/2"])
    assert lists.wanted == before
