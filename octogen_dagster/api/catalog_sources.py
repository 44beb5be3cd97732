"""CatalogSource: where the catalogs come from that are listed, watched and read as a whole."""

from __future__ import annotations

import asyncio
import copy
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self
from urllib.parse import urlsplit

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.catalog_states import CatalogList, CatalogState, catalogs_of_shop
from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.estimate import estimate_pages
from octogen_dagster.api.flow import Flow, domain_flow
from octogen_dagster.api.search import MAX_PAGE_SIZE
from octogen_dagster.api.service import Service
from octogen_dagster.background import StoppedError, submit, wait_interruptibly
from octogen_dagster.errors import (
    OctogenAPIError,
    OctogenEmptyCatalogError,
    OctogenError,
    OctogenNotFoundError,
    OctogenTimeoutError,
)
from octogen_dagster.printable import printable
from octogen_dagster.validation import require_percent

MAX_EXTRA_PAGES_PERCENT = 5.0
"""The share of pages that reading a catalog in several walks may add by default."""

_POLL_SECONDS = 0.2
_MAX_AGE_OF_LIST = 10.0
_ENDING_SECONDS = 1.5
"""The seconds that a source that is to end is waited for."""
_MAX_ERRORS_IN_MESSAGE = 5
_MAX_CATALOGS_IN_MESSAGE = 20
_told: set[tuple[CatalogSource, str, tuple[str, ...]]] = set()
"""The warnings of this process: a source, a host, and the several catalogs that serve it."""


class CatalogSource(ABC):
    """A source of catalogs. Derive from it to write one of your own."""

    @abstractmethod
    async def fetch(self, client: OctogenClient) -> CatalogList:
        """List the catalogs that there are now.

        Args:
            client: Sends the requests. The list must not take longer than its `deadline`.

        Raises:
            OctogenError: No catalog can be listed.
        """

    def _fetch_blocking(self, client: BlockingClient) -> CatalogList:
        """List the catalogs for a caller that blocks; a user's own source has only `fetch`."""
        return _run_on_event_loop(self, client)


@dataclass(frozen=True)
class GrantedCatalogs(CatalogSource):
    """The catalogs that are granted to the API key.

    The service tells when each was last indexed. Today's service has no such list and answers 404.
    """

    async def fetch(self, client: OctogenClient) -> CatalogList:
        """`CatalogSource.fetch`."""
        return await client.list_catalog_states()

    def _fetch_blocking(self, client: BlockingClient) -> CatalogList:
        return client.list_catalog_states()


@dataclass(frozen=True)
class ShopCatalogs(CatalogSource):
    """The catalogs that serve the hosts of shops.

    The hosts are requested at the same time, and all together may take as long as one request. A
    host that fails is a warning, unless all fail. Only a search that reads the catalogs of all
    hosts fails with it, unless Octogen does not cover the shop. The service tells when it computed
    the number of products, but not when a catalog was indexed.

    Several catalogs may serve one host. One of them may be an aggregate of many shops, and the
    same product is in two of them under two uuids. All are read; a warning names them, with their
    products and what a read of each costs, until `catalogs` chooses.

    Args:
        hosts: Hosts or URLs of shops, such as `shop.example`.
        catalogs: Keys of those catalogs of the hosts that are read; by default all.

    Raises:
        ValueError: There is no host, one is malformed, or a key is empty.
    """

    hosts: Sequence[str]
    catalogs: Sequence[str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "hosts", _unique(map(_checked_host, _texts("hosts", self.hosts))))
        if self.catalogs is not None:
            object.__setattr__(self, "catalogs", _keys(self, "catalogs", self.catalogs))

    async def fetch(self, client: OctogenClient) -> CatalogList:
        """`CatalogSource.fetch`."""
        return self._joined(await client._run_all(self._flows(client._service)))

    def _fetch_blocking(self, client: BlockingClient) -> CatalogList:
        return self._joined(client.run_all(self._flows(client.service)))

    def _flows(self, service: Service) -> list[Flow[CatalogList | OctogenError]]:
        service = service.within(service.retry.deadline)
        return [_shop_flow(service, host) for host in self.hosts]

    def _joined(self, found: Sequence[CatalogList | OctogenError]) -> CatalogList:
        lists = [each for each in found if isinstance(each, CatalogList)]
        by_host = dict(zip(self.hosts, found, strict=True))
        errors = {host: each for host, each in by_host.items() if isinstance(each, OctogenError)}
        if not lists:
            raise _error_of_all([*errors.values()])
        failure = _passing(errors.values())
        states = [state for each in lists for state in each.catalogs]
        if self.catalogs is not None:
            if not failure:  # or the missing ones may be of a shop that failed
                self._require_chosen(states, [*errors.values()])
            states = [state for state in states if state.catalog in self.catalogs]
        return CatalogList(
            states,
            [line for each in lists for line in each.warnings]
            + [f"{error} The catalogs of this shop are left out." for error in errors.values()],
            failure,
            {host: str(error) for host, error in errors.items()},
        )

    def _require_chosen(
        self, states: Sequence[CatalogState], errors: Sequence[OctogenError]
    ) -> None:
        """Check that every chosen catalog serves a host."""
        there = {state.catalog: state.host for state in states}
        missing = [key for key in self.catalogs or () if key not in there]
        if not missing:
            return
        named = [f"{key!r} ({printable(host or '')})" for key, host in there.items()]
        text = ", ".join(named[:_MAX_CATALOGS_IN_MESSAGE]) or "none"
        if len(named) > _MAX_CATALOGS_IN_MESSAGE:
            text += f" and {len(named) - _MAX_CATALOGS_IN_MESSAGE:,} more"
        failed = "".join(f" {error}" for error in errors[:_MAX_ERRORS_IN_MESSAGE])
        raise OctogenEmptyCatalogError(
            f"Catalog {missing[0]!r} was chosen and serves none of the hosts. Those that do are: "
            f"{text}. Correct `catalogs` of ShopCatalogs, or add the host of the shop.{failed}"
        )


@dataclass(frozen=True)
class NamedCatalogs(CatalogSource):
    """Catalogs with given keys. Nothing is requested, so nothing else is known of them.

    Args:
        keys: Catalog keys.

    Raises:
        ValueError: There is no key, or one is empty.
    """

    keys: Sequence[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", _keys(self, "keys", self.keys))

    async def fetch(self, client: OctogenClient) -> CatalogList:
        """`CatalogSource.fetch`."""
        return self._listed()

    def _fetch_blocking(self, client: BlockingClient) -> CatalogList:
        return self._listed()

    def _listed(self) -> CatalogList:
        return CatalogList([CatalogState(key) for key in self.keys])


class Listing:
    """The latest list of a service's catalogs, which its reads share. A copy or pickle has none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: tuple[float, CatalogList | OctogenError] | None = None

    def __reduce__(self) -> tuple[type[Listing], tuple[()]]:
        return type(self), ()

    def fetched_since(self, moment: float, client: BlockingClient) -> CatalogList:
        """Return the list if it was requested at a time of the service's clock or later.

        Else it is requested by one thread at a time, and those that wait share it. An error is
        remembered too.
        """
        service = client.service
        assert isinstance(service, CatalogService)
        while not self._lock.acquire(timeout=_POLL_SECONDS):
            client.check()
        try:
            if self._latest is None or self._latest[0] < moment:
                requested_at = service.clock()
                try:
                    self._latest = requested_at, fetch_catalogs(client, service.catalog_source)
                except OctogenError as error:
                    self._latest = service.clock(), error  # it may have taken long
            listed = self._latest[1]
        finally:
            self._lock.release()
        if isinstance(listed, OctogenError):
            raise copy.copy(listed)  # each of its readers has a traceback of its own
        return listed

    def of_run(self, client: BlockingClient) -> CatalogList:
        """Return the list for one of many reads that begins.

        A list that says when catalogs were indexed must not be older than ten seconds: a catalog
        that is indexed again before its read ends is read in vain. Nor must an error be older,
        unless it says that there is no list. Any other list will do.
        """
        latest = self._latest[1] if self._latest else None
        if isinstance(latest, CatalogList):
            changes = any(state.last_indexed_at for state in latest.catalogs)
        else:
            changes = not isinstance(latest, OctogenNotFoundError)
        age = _MAX_AGE_OF_LIST if changes else math.inf
        return self.fetched_since(client.service.clock() - age, client)


@dataclass(frozen=True)
class CatalogService(Service):
    """A service, and how whole catalogs are read from it.

    `concurrency` catalogs are read, or products are looked up, at once. Reading a catalog in
    several walks may add `max_extra_pages_percent` to its pages; with 0 each is read in one walk.
    """

    catalog_source: CatalogSource = field(default_factory=GrantedCatalogs)
    listing: Listing = field(default_factory=Listing, compare=False, repr=False)
    concurrency: int = 8
    max_extra_pages_percent: float = MAX_EXTRA_PAGES_PERCENT

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {self.concurrency}")
        require_percent("max_extra_pages_percent", self.max_extra_pages_percent)

    def for_run(self, warn: Callable[[str], None], *, reads_several: bool) -> Self:
        """Return the same service for a run, which may read several partitions at once.

        Together they have no more requests in flight than one alone would have, whose catalog may
        be read in several walks.
        """
        service = self.with_log(warn)
        if not reads_several:
            return service
        service.limiter.in_flight.cap(service.concurrency)
        return service.keeping_connections()

    def fetch_catalogs(self) -> CatalogList:
        """List the catalogs of the source, each once, over a connection of its own."""
        with BlockingClient(self) as client:
            listed = fetch_catalogs(client, self.catalog_source)
        warnings = [*listed.warnings, *several_of_a_host(self, listed.catalogs)]
        return replace(listed, warnings=warnings)


def fetch_catalogs(client: BlockingClient, source: CatalogSource) -> CatalogList:
    """List the catalogs of a source, each once."""
    listed = source._fetch_blocking(client)
    states, repeated = listed.catalogs, dict[str, None]()
    if len({state.catalog for state in states}) < len(states):
        by_key: dict[str, CatalogState] = {}
        for state in listed.catalogs:
            if state.catalog in by_key:
                repeated[state.catalog] = None
            by_key.setdefault(state.catalog, state)
        states = list(by_key.values())
    return CatalogList(
        states,
        [
            *listed.warnings,
            *(f"Catalog {key!r} is listed more than once. It is read once." for key in repeated),
        ],
        listed.failure,
        listed.shops_left_out,
    )


def _shop_flow(service: Service, host: str) -> Flow[CatalogList | OctogenError]:
    """List the catalogs of a shop's host; an error is returned, so that the others go on."""
    try:
        return catalogs_of_shop((yield from domain_flow(service, host, paced=True)), host)
    except OctogenError as error:
        return error


def _run_on_event_loop(source: CatalogSource, client: BlockingClient) -> CatalogList:
    """Run a source of a user's own, whose `fetch` is a coroutine, in a thread of its own.

    The calling thread may have an event loop that runs already. All requests of the source
    together may take as long as one.
    """
    service = client.service.within(client.service.retry.deadline)
    ends_at = service.ends_at

    async def fetch() -> CatalogList:
        async with OctogenClient(_service=service) as octogen:
            task = asyncio.ensure_future(source.fetch(octogen))
            while not (task.done() or client.stop.is_set() or service.clock() >= ends_at):
                await asyncio.wait({task}, timeout=_POLL_SECONDS)
            if not task.done():
                task.cancel()
                raise StoppedError
            return task.result()

    thread = submit(lambda: asyncio.run(fetch()), "octogen-source")
    wait_interruptibly(thread, ends_at - service.clock() + _ENDING_SECONDS, client.check)
    if thread.done() and not isinstance(thread.exception(), StoppedError):
        return thread.result()
    client.check()
    raise OctogenTimeoutError(
        f"{type(source).__name__} did not list the catalogs in time. Try again."
    )


def several_by_host(states: Iterable[CatalogState]) -> dict[str, list[CatalogState]]:
    """Return the catalogs of each host that more than one serves, the smallest first."""
    by_host: dict[str, list[CatalogState]] = {}
    for state in sorted(states, key=lambda state: state.product_count or math.inf):
        by_host.setdefault(state.host or "", []).append(state)
    return {host: several for host, several in by_host.items() if len(several) > 1}


def several_of_a_host(service: CatalogService, states: Iterable[CatalogState]) -> Iterator[str]:
    """Warn of each host with several catalogs among which nobody chose, once in this process."""
    source = service.catalog_source
    if not isinstance(source, ShopCatalogs) or source.catalogs is not None:
        return
    for host, several in several_by_host(states).items():
        known = (source, host, tuple(sorted(state.catalog for state in several)))
        if known in _told:
            continue
        _told.add(known)
        named = "; ".join(_size(state, service) for state in several)
        yield (
            f"Shop {host!r} is served by {len(several)} catalogs, and each is read: {named}. One "
            "may be an aggregate of many shops, with the same products under other uuids. Name "
            "all that are to be read, such as "
            f"ShopCatalogs(hosts=[...], catalogs=[{several[0].catalog!r}])."
        )


def _size(state: CatalogState, service: Service) -> str:
    if state.product_count is None:
        return f"{state.catalog!r} with an unknown number of products"
    cost = estimate_pages([state.product_count], MAX_PAGE_SIZE, service)
    dollars = f", ${cost.cost_usd:,.2f}" if cost.price_usd else ""
    return f"{state.catalog!r} with {state.product_count:,} products{dollars}"


def _texts(name: str, values: Iterable[str]) -> list[str]:
    if isinstance(values, str):
        raise ValueError(f"{name} must be a list, not the text {values!r}: write [{values!r}]")
    texts = list(values or ())
    if not texts:
        raise ValueError(f"{name} is empty: name at least one")
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{name} has {text!r}, which is not text: write it in quotes")
    return texts


def _keys(source: CatalogSource, name: str, values: Iterable[str]) -> tuple[str, ...]:
    keys = [key.strip() for key in _texts(name, values)]
    if not all(keys):
        raise ValueError(f"{type(source).__name__} has an empty key: remove it")
    return _unique(keys)


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _checked_host(text: str) -> str:
    """The host of a shop's URL, or a host itself, in lower case and without `www.`."""
    text = text.strip()
    try:
        host = urlsplit(text if "://" in text else f"//{text}").hostname
    except ValueError:
        host = None
    host = (host or "").rstrip(".").removeprefix("www.")
    if not host or any(character.isspace() or character == "%" for character in host):
        raise ValueError(
            f"hosts has {text!r}, which is not a host: write one such as 'shop.example'"
        )
    return host


def _passing(errors: Iterable[OctogenError]) -> OctogenError | None:
    """The first error that says nothing about whether Octogen covers the shop."""
    for error in errors:
        if not (isinstance(error, OctogenNotFoundError) and error.detail == "domain_not_covered"):
            return error
    return None


def _error_of_all(errors: Sequence[OctogenError]) -> OctogenError:
    """The error to raise if every host failed: a passing one if there is one."""
    first = _passing(errors) or errors[0]
    if len(errors) == 1:
        return first
    of_each_type = list({type(each): each for each in reversed(errors)}.values())
    shown = sorted(errors, key=lambda each: each not in of_each_type)
    texts = " ".join(str(each) for each in shown[:_MAX_ERRORS_IN_MESSAGE])
    text = f"None of {len(errors)} shops could be read. {texts}"
    return first.with_message(text) if isinstance(first, OctogenAPIError) else type(first)(text)
