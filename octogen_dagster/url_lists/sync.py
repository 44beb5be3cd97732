"""Synchronizes a URL list with a table: finds the differences, then removes and adds URLs.

    UrlListSync.synchronize → difference: `contains`, and the members if there are surplus URLs
                            → remove surplus URLs, then add missing URLs

No state is kept between runs, because Octogen's API reports what is in the list and which URLs
count as equal. Adding and removing URLs is idempotent, so if a run is killed, the next run
completes its work.
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
"""Maximum number of times a run compares or reads a list that other programs keep changing."""


class Rejection(NamedTuple):
    """The reason why a URL is not in the list."""

    code: str
    message: str


_NO_ANSWER = Rejection("no_answer", "Octogen's response did not mention the URL.")


class Difference(NamedTuple):
    """The differences between a list and a table.

    Attributes:
        url_count: The number of URLs in the list.
        missing: URLs in the table that are not in the list.
        surplus: URLs in the list that are not in the table.
    """

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
    """Return the list with the given name, or None if it does not exist or is being deleted."""
    return next((each for each in live_url_lists(client) if each.name == name), None)


def create_url_list(client: BlockingClient, name: str) -> CoverageUrlList:
    """Create a list, or return the existing list with this name.

    The list can exist because the first response was lost or because another run created it.
    """
    try:
        return client.create_coverage_url_list(name)
    except OctogenUrlListNameConflictError:
        if found := find_url_list(client, name):
            return found
        raise


class UrlListSync:
    """Synchronizes a URL list with a table during one run.

    Attributes:
        normalized: The normalized forms of the table's URLs.
        rejected: The reasons for the rejection of URLs.
        added: The normalized URLs that were added.
        removed: The normalized URLs that were removed.
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
        """Return the table's URLs in normalized form, except rejected and unchecked URLs."""
        return {
            self.normalized[url]
            for url in self._urls
            if url in self.normalized and url not in self.rejected
        }

    def synchronize(self, check_removal: Callable[[int, int], None]) -> None:
        """Remove surplus URLs from the list, and add missing URLs.

        Before any change, `check_removal` is called with the number of URLs to remove and the
        number of URLs in the list. The function can raise an error to prevent the removal.
        """
        for _ in range(_MAX_ATTEMPTS):
            difference = self._difference(check_removal)
            if not difference.missing and not difference.surplus:
                return
            if self._apply(difference) == len(self.wanted()):
                return
            # The list's size shows that another run has changed the list in the meantime.
            self.url_list = self._client.get_coverage_url_list(self.url_list.url_list_id)
        raise self._changed_by_others()

    def _difference(self, check_removal: Callable[[int, int], None]) -> Difference:
        """Return the differences between the list and the table.

        There are no differences if the table has no URLs. The list's size was requested before the
        comparison. If another run adds some of the table's URLs in between, the computed surplus is
        too small, but never too large.
        """
        count = self.url_list.url_count
        urls = [url for url in self._urls if url not in self.rejected]
        if not urls:
            return Difference(count)
        # An empty list does not need a check, but only Octogen can count the distinct URLs.
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

    def _apply(self, difference: Difference) -> int:
        """Remove surplus URLs, add missing URLs, and return the list's new size.

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
        # If several URLs are equal, a response might contain only one of them.
        mentioned = {*accepted, *self.rejected}
        unmentioned = [url for url in difference.missing if url not in mentioned]
        present = self._check(unmentioned)
        absent = [
            url
            for url in unmentioned
            if url not in present and self.normalized.get(url) not in self.added
        ]
        # A response might spell rejected URLs differently, but their order is the same.
        reasons = [reason for url, reason in rejected if url not in missing]
        if len(reasons) != len(absent):
            reasons = [_NO_ANSWER] * len(absent)
        self.rejected |= dict(zip(absent, reasons, strict=True))
        return count

    def _check(self, urls: Sequence[str]) -> set[str]:
        """Return the URLs that are in the list.

        The normalized form of every URL is added to `normalized`.
        """
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
        """Map the URLs in the request to their results.

        If a response contains one result for each URL in the same order, it can spell URLs
        differently. Any other response must spell the URLs in the same way as the request.
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
            f"URL list {self.url_list.name!r} ({self.url_list.url_list_id}) was not changed, "
            f"because its table has {distinct:,} distinct URLs. A list can contain at most "
            f"{MAX_LIST_URLS:,} URLs. Split the table into several lists."
        )
        error.persistence = Persistence.PERMANENT
        return error

    def _unknown_urls(self, unknown: int, total: int) -> OctogenError:
        error = OctogenError(
            f"URL list {self.url_list.name!r} ({self.url_list.url_list_id}) could not be compared "
            f"with its table, because {unknown:,} of the {total:,} URLs in Octogen's response were "
            "not in the request. Report this to Octogen."
        )
        error.persistence = Persistence.PERMANENT
        return error

    def _changed_by_others(self) -> OctogenError:
        return OctogenError(
            f"URL list {self.url_list.name!r} ({self.url_list.url_list_id}) could not be compared "
            "with its table, because another program changed the list during each of "
            f"{_MAX_ATTEMPTS} attempts. Stop all other programs that write to the list, then run "
            "the asset again."
        )


def _batches(urls: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(urls), MAX_URLS_PER_REQUEST):
        yield urls[first : first + MAX_URLS_PER_REQUEST]
