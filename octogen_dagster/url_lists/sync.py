"""A URL list is brought to a table: the difference is asked for, then sent.

    UrlListSync.bring → difference: `contains`, and the members only if there are too many
                      → what is surplus is removed, then what is missing is added

Nothing is kept between runs: what the list has, and which addresses are the same, is what the
service says now. Adding and removing are idempotent, so a run that was killed anywhere is mended by
the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from octogen_dagster.api.url_lists import (
    MAX_LIST_URLS,
    MAX_PAGE_SIZE,
    MAX_URLS_PER_REQUEST,
    read_pages,
)
from octogen_dagster.errors import (
    OctogenError,
    OctogenUrlListError,
    OctogenUrlListNameConflictError,
    Persistence,
)

if TYPE_CHECKING:
    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.url_lists import CoverageContainsResult, CoverageUrlList

PROVISIONING = "provisioning"
DELETE_PENDING = "delete_pending"
_MAX_TRIES = 3
"""The times that a run compares the list with its table while others change the list."""


class Rejection(NamedTuple):
    """The reason for which an address is not in the list."""

    code: str
    message: str


_NO_ANSWER = Rejection("no_answer", "Octogen did not say what became of it.")


class Difference(NamedTuple):
    """The difference of a list and a table: addresses to add, and normalized ones to remove."""

    url_count: int
    missing: Sequence[str] = ()
    surplus: Sequence[str] = ()


def live_url_lists(client: BlockingClient) -> Iterator[CoverageUrlList]:
    """Yield the lists that are not being deleted."""
    pages = read_pages(
        lambda cursor: client.list_coverage_url_lists(cursor=cursor, limit=MAX_PAGE_SIZE),
        "The list of URL lists",
    )
    return (each for page in pages for each in page.items if each.status != DELETE_PENDING)


def find_url_list(client: BlockingClient, name: str) -> CoverageUrlList | None:
    """Find the live list of a name."""
    return next((each for each in live_url_lists(client) if each.name == name), None)


def make_url_list(client: BlockingClient, name: str) -> CoverageUrlList:
    """Make a list, or find the one that an attempt without an answer or another run has made."""
    try:
        return client.create_coverage_url_list(name)
    except OctogenUrlListNameConflictError:
        if found := find_url_list(client, name):
            return found
        raise


class UrlListSync:
    """A list that is brought to the addresses of a table.

    `normalized` has the form in which the service keeps an address, and `rejected` why it does not.
    `added` and `removed` are the normalized addresses that were sent.
    """

    def __init__(
        self, client: BlockingClient, url_list: CoverageUrlList, urls: Sequence[str]
    ) -> None:
        self.url_list = url_list
        self.normalized: dict[str, str] = {}
        self.rejected: dict[str, Rejection] = {}
        self.added: set[str] = set()
        self.removed: set[str] = set()
        self._client = client
        self._urls = urls

    def wanted(self) -> set[str]:
        """The normalized addresses that the list is to have, as far as the service told them."""
        return {
            self.normalized[url]
            for url in self._urls
            if url in self.normalized and url not in self.rejected
        }

    def bring(self, check_removal: Callable[[int, int], None]) -> None:
        """Bring the list to the table.

        `check_removal` takes a number of addresses to remove and the number of all, and raises if
        it is too large. It is called before anything is sent.
        """
        for _ in range(_MAX_TRIES):
            difference = self._difference(check_removal)
            if not difference.missing and not difference.surplus:
                return
            if self._send(difference) == len(self.wanted()):
                return
            # Its count says that another run changed it meanwhile.
            self.url_list = self._client.get_coverage_url_list(self.url_list.url_list_id)
        raise self._changed()

    def _difference(self, check_removal: Callable[[int, int], None]) -> Difference:
        """Ask the service what separates the list from the table; nothing if that has no address.

        The count of the list is older than what it is compared with. If another run adds addresses
        of the table meanwhile, fewer seem to be surplus, and never more.
        """
        count = self.url_list.url_count
        urls = [url for url in self._urls if url not in self.rejected]
        if not urls:
            return Difference(count)
        # An empty list has none of them, and only the service knows how many of them differ.
        there = self._check(urls) if count or len(urls) > MAX_LIST_URLS else set()
        # An answer may name what is no address too, as it was sent.
        different = sum(each.startswith("http") for each in self.wanted())
        if different > MAX_LIST_URLS:
            raise self._too_many(different)
        missing = [url for url in urls if url not in there]
        surplus = count - len({self.normalized[url] for url in there})
        if surplus <= 0:
            return Difference(count, missing)
        check_removal(surplus, count)
        wanted = self.wanted()
        others = [each for each in dict.fromkeys(self._members()) if each not in wanted]
        check_removal(len(others), count)  # others may have been added since
        return Difference(count, missing, others)

    def _send(self, difference: Difference) -> int:
        """Remove, then add, and return the number of addresses that the list has then.

        A full list has room for new addresses only in this order.
        """
        client, list_id, count = self._client, self.url_list.url_list_id, difference.url_count
        accepted, rejected = dict[str, str](), list[tuple[str, Rejection]]()
        for some in _requests_of(difference.surplus):
            count = client.remove_coverage_url_list_urls(list_id, some).url_count
            self.removed.update(some)
        for some in _requests_of(difference.missing):
            answer = client.add_coverage_url_list_urls(list_id, some)
            count = answer.url_count
            accepted |= {each.url: each.normalized_url for each in answer.accepted}
            self.added |= {each.normalized_url for each in answer.accepted}
            rejected += [(each.url, Rejection(each.code, each.message)) for each in answer.rejected]
        self.normalized |= accepted
        missing = set(difference.missing)
        self.rejected |= {url: reason for url, reason in rejected if url in missing}
        # Of two addresses that are the same, an answer may name only one.
        named = {*accepted, *self.rejected}
        unnamed = [url for url in difference.missing if url not in named]
        there = self._check(unnamed)
        absent = [
            url
            for url in unnamed
            if url not in there and self.normalized.get(url) not in self.added
        ]
        # An answer may spell what it rejects otherwise than it was sent, and keeps the order.
        reasons = [reason for url, reason in rejected if url not in missing]
        if len(reasons) != len(absent):
            reasons = [_NO_ANSWER] * len(absent)
        self.rejected |= dict(zip(absent, reasons, strict=True))
        return count

    def _check(self, urls: Sequence[str]) -> set[str]:
        """Ask for the normalized forms of addresses, and return those that are in the list."""
        there = set()
        for some in _requests_of(urls):
            answer = self._client.check_coverage_url_list_urls(self.url_list.url_list_id, some)
            results = self._results_by_sent(some, answer.results)
            self.normalized |= {url: each.normalized_url for url, each in results.items()}
            there |= {url for url, each in results.items() if each.present}
        return there

    def _results_by_sent(
        self, sent: Sequence[str], results: Sequence[CoverageContainsResult]
    ) -> Mapping[str, CoverageContainsResult]:
        """The results by the addresses as they were sent, which an answer may spell otherwise.

        An answer has a result for each address, in their order. One that has fewer, or another
        order, has to spell the addresses as they were sent.
        """
        places = {url: place for place, url in enumerate(sent)}
        in_order = len(results) == len(sent) and all(
            each.url not in places or results[places[each.url]].url == each.url for each in results
        )
        if in_order:
            return dict(zip(sent, results, strict=True))
        if strange := sum(each.url not in places for each in results):
            raise self._strange(strange, len(results))
        return {each.url: each for each in results}

    def _members(self) -> list[str]:
        """All normalized addresses of the list."""
        list_id = self.url_list.url_list_id
        for _ in range(_MAX_TRIES):
            pages = read_pages(
                lambda cursor: self._client.list_coverage_url_list_urls(
                    list_id, cursor=cursor, limit=MAX_PAGE_SIZE
                ),
                f"The URLs of URL list {list_id!r}",
            )
            try:
                return [each.normalized_url for page in pages for each in page.items]
            except OctogenUrlListError as error:
                if error.code != "invalid_cursor":  # a cursor is stale once the list was changed
                    raise
        raise self._changed()

    def _too_many(self, different: int) -> OctogenError:
        error = OctogenError(
            f"URL list {self.url_list.name!r} ({self.url_list.url_list_id}) was not changed: its "
            f"table has {different:,} different addresses, and a list has at most "
            f"{MAX_LIST_URLS:,}. Split the table into several lists."
        )
        error.persistence = Persistence.PERMANENT
        return error

    def _strange(self, strange: int, of: int) -> OctogenError:
        error = OctogenError(
            f"URL list {self.url_list.name!r} ({self.url_list.url_list_id}) was not compared with "
            f"its table: {strange:,} of the {of:,} URLs in Octogen's answer were not sent. Report "
            "it to Octogen."
        )
        error.persistence = Persistence.PERMANENT
        return error

    def _changed(self) -> OctogenError:
        return OctogenError(
            f"URL list {self.url_list.name!r} ({self.url_list.url_list_id}) was changed by others "
            f"each of the {_MAX_TRIES} times that this run compared it with its table. Look for "
            "another run or program that writes to the list, then run this one again."
        )


def _requests_of(urls: Sequence[str]) -> Iterator[Sequence[str]]:
    """The addresses of each request."""
    for first in range(0, len(urls), MAX_URLS_PER_REQUEST):
        yield urls[first : first + MAX_URLS_PER_REQUEST]
