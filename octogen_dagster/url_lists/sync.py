"""Synchronizes a URL list with a table: determines the difference, then sends it.

    UrlListSync.synchronize → difference: `contains`, and the members if there are surplus URLs
                            → remove surplus URLs, then add missing URLs

No state is kept between runs, because Octogen knows what is in the list and which URLs count as
equal. Adding and removing URLs is idempotent, so if a run is killed, the next run completes its
work.
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
_MAX_ATTEMPTS = 3
"""Maximum number of comparisons in a run, because other programs can keep changing the list."""


class Rejection(NamedTuple):
    """The reason why a URL is not in the list."""

    code: str
    message: str


_NO_ANSWER = Rejection("no_answer", "Octogen's response did not mention the URL.")


class Difference(NamedTuple):
    """The list's size, the table's URLs that the list lacks, and the list's surplus URLs."""

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
    """Return the list with a name, or None if it does not exist or is being deleted."""
    return next((each for each in live_url_lists(client) if each.name == name), None)


def create_url_list(client: BlockingClient, name: str) -> CoverageUrlList:
    """Create a list, or return the list that a lost request or a concurrent run has created."""
    try:
        return client.create_coverage_url_list(name)
    except OctogenUrlListNameConflictError:
        if found := find_url_list(client, name):
            return found
        raise


class UrlListSync:
    """The synchronization of a list with a table's URLs in a single run.

    `normalized` maps the table's URLs to their normalized form, and `rejected` to rejections.
    `added` and `removed` contain the normalized URLs that were added and removed.
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
        """Return the normalized form of the table's accepted URLs, as far as it is known."""
        return {
            self.normalized[url]
            for url in self._urls
            if url in self.normalized and url not in self.rejected
        }

    def synchronize(self, check_removal: Callable[[int, int], None]) -> None:
        """Make the list equal to the table.

        Before any change, `check_removal` is called with the number of URLs to remove and the
        list's size. It raises an error to prevent the removal.
        """
        for _ in range(_MAX_ATTEMPTS):
            difference = self._difference(check_removal)
            if not difference.missing and not difference.surplus:
                return
            if self._send(difference) == len(self.wanted()):
                return
            # The count shows that another run changed the list in the meantime.
            self.url_list = self._client.get_coverage_url_list(self.url_list.url_list_id)
        raise self._changed_by_others()

    def _difference(self, check_removal: Callable[[int, int], None]) -> Difference:
        """Return the difference between the list and the table.

        It is empty if the table has no URLs. The list's count was requested before the comparison.
        If another run adds some of the table's URLs in between, the surplus can only seem smaller
        than it is.
        """
        count = self.url_list.url_count
        urls = [url for url in self._urls if url not in self.rejected]
        if not urls:
            return Difference(count)
        # An empty list contains none, but only Octogen can count how many URLs are distinct.
        present = self._check(urls) if count or len(urls) > MAX_LIST_URLS else set()
        # A response can also echo invalid URLs unchanged.
        distinct = sum(each.startswith("http") for each in self.wanted())
        if distinct > MAX_LIST_URLS:
            raise self._too_many(distinct)
        missing = [url for url in urls if url not in present]
        surplus = count - len({self.normalized[url] for url in present})
        if surplus <= 0:
            return Difference(count, missing)
        check_removal(surplus, count)
        wanted = self.wanted()
        others = [each for each in dict.fromkeys(self._members()) if each not in wanted]
        check_removal(len(others), count)  # more might have been added since
        return Difference(count, missing, others)

    def _send(self, difference: Difference) -> int:
        """Remove URLs, then add URLs, and return the list's new size.

        URLs are removed first, so that a full list has room for new URLs.
        """
        client, list_id, count = self._client, self.url_list.url_list_id, difference.url_count
        accepted, rejected = dict[str, str](), list[tuple[str, Rejection]]()
        for batch in _batches(difference.surplus):
            count = client.remove_coverage_url_list_urls(list_id, batch).url_count
            self.removed.update(batch)
        for batch in _batches(difference.missing):
            answer = client.add_coverage_url_list_urls(list_id, batch)
            count = answer.url_count
            accepted |= {each.url: each.normalized_url for each in answer.accepted}
            self.added |= {each.normalized_url for each in answer.accepted}
            rejected += [(each.url, Rejection(each.code, each.message)) for each in answer.rejected]
        self.normalized |= accepted
        missing = set(difference.missing)
        self.rejected |= {url: reason for url, reason in rejected if url in missing}
        # A response might mention only one URL among equal ones.
        mentioned = {*accepted, *self.rejected}
        unmentioned = [url for url in difference.missing if url not in mentioned]
        present = self._check(unmentioned)
        absent = [
            url
            for url in unmentioned
            if url not in present and self.normalized.get(url) not in self.added
        ]
        # A response might spell rejected URLs differently, but keeps their order.
        reasons = [reason for url, reason in rejected if url not in missing]
        if len(reasons) != len(absent):
            reasons = [_NO_ANSWER] * len(absent)
        self.rejected |= dict(zip(absent, reasons, strict=True))
        return count

    def _check(self, urls: Sequence[str]) -> set[str]:
        """Request the normalized form of URLs, and return the URLs that are in the list."""
        present = set()
        for batch in _batches(urls):
            answer = self._client.check_coverage_url_list_urls(self.url_list.url_list_id, batch)
            results = self._results_by_url(batch, answer.results)
            self.normalized |= {url: each.normalized_url for url, each in results.items()}
            present |= {url for url, each in results.items() if each.present}
        return present

    def _results_by_url(
        self, sent: Sequence[str], results: Sequence[CoverageContainsResult]
    ) -> Mapping[str, CoverageContainsResult]:
        """Return the results by URL, in the spelling that was sent.

        If a response has one result per URL in the same order, it can spell URLs differently. Any
        other response must spell them as sent.
        """
        places = {url: place for place, url in enumerate(sent)}
        in_order = len(results) == len(sent) and all(
            each.url not in places or results[places[each.url]].url == each.url for each in results
        )
        if in_order:
            return dict(zip(sent, results, strict=True))
        if unknown := sum(each.url not in places for each in results):
            raise self._unknown_urls(unknown, len(results))
        return {each.url: each for each in results}

    def _members(self) -> list[str]:
        """Return all normalized URLs in the list."""
        list_id = self.url_list.url_list_id
        for _ in range(_MAX_ATTEMPTS):
            pages = read_pages(
                lambda cursor: self._client.list_coverage_url_list_urls(
                    list_id, cursor=cursor, limit=MAX_PAGE_SIZE
                ),
                f"The URLs of URL list {list_id!r}",
            )
            try:
                return [each.normalized_url for page in pages for each in page.items]
            except OctogenUrlListError as error:
                if error.code != "invalid_cursor":  # changing the list invalidates cursors
                    raise
        raise self._changed_by_others()

    def _too_many(self, distinct: int) -> OctogenError:
        error = OctogenError(
            f"URL list {self.url_list.name!r} ({self.url_list.url_list_id}) was not changed: its "
            f"table has {distinct:,} distinct URLs, but a list can have at most "
            f"{MAX_LIST_URLS:,}. Split the table into several lists."
        )
        error.persistence = Persistence.PERMANENT
        return error

    def _unknown_urls(self, unknown: int, total: int) -> OctogenError:
        error = OctogenError(
            f"URL list {self.url_list.name!r} ({self.url_list.url_list_id}) was not compared with "
            f"its table: {unknown:,} of the {total:,} URLs in Octogen's response were not in the "
            "request. Report this to Octogen."
        )
        error.persistence = Persistence.PERMANENT
        return error

    def _changed_by_others(self) -> OctogenError:
        return OctogenError(
            f"URL list {self.url_list.name!r} ({self.url_list.url_list_id}) was changed during all "
            f"{_MAX_ATTEMPTS} comparisons with its table. Stop other runs or programs that write "
            "to the list, then run this one again."
        )


def _batches(urls: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the URLs for each request."""
    for first in range(0, len(urls), MAX_URLS_PER_REQUEST):
        yield urls[first : first + MAX_URLS_PER_REQUEST]
