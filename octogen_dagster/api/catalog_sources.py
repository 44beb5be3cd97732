"""Catalog sources, which list the catalogs for assets and for the catalog sensor."""

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
from octogen_dagster.api.flow import Flow
from octogen_dagster.api.operations import domain_flow
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
"""Default limit for extra pages in a parallel read, as a percentage of the catalog's pages."""

_POLL_SECONDS = 0.2
_MAX_LISTING_AGE = 10.0
_CANCELLATION_SECONDS = 1.5
"""Maximum time in seconds until a cancelled `fetch` returns."""
_MAX_ERRORS_IN_MESSAGE = 5
_MAX_CATALOGS_IN_MESSAGE = 20
_warned: set[tuple[CatalogSource, str, tuple[str, ...]]] = set()
"""The warnings that this process has already logged, as (source, host, catalogs)."""


class CatalogSource(ABC):
    """Base class of catalog sources, including sources that you write."""

    @abstractmethod
    async def fetch(self, client: OctogenClient) -> CatalogList:
        """List the current catalogs.

        Args:
            client: The client for requests to Octogen. `fetch` must return within
                `client.deadline` seconds.

        Raises:
            OctogenError: The catalogs cannot be listed.
        """

    def _fetch_blocking(self, client: BlockingClient) -> CatalogList:
        """List the catalogs synchronously. Custom sources need to implement only `fetch`."""
        return _run_on_event_loop(self, client)


@dataclass(frozen=True)
class GrantedCatalogs(CatalogSource):
    """All catalogs granted to the API key, with their last index times.

    Octogen's current service does not offer this list and responds with 404.
    """

    async def fetch(self, client: OctogenClient) -> CatalogList:
        """List the catalogs granted to the API key."""
        return await client.list_catalog_states()

    def _fetch_blocking(self, client: BlockingClient) -> CatalogList:
        return client.list_catalog_states()


@dataclass(frozen=True)
class ShopCatalogs(CatalogSource):
    """The catalogs for one or more shops, given by their hosts.

    All hosts are requested concurrently and share the deadline for one request. If a host fails, a
    warning is logged. The listing fails only if all hosts fail. A search in the catalogs for all
    hosts fails if any host fails, unless Octogen does not cover the shop. For each catalog, the
    service reports when it computed the product count, but not when it last indexed the catalog.

    A host can have several catalogs. If one catalog contains several shops, the same product can
    appear in two catalogs with different uuids. By default, all catalogs are read, and a warning
    lists the catalogs with their product counts and read costs. To read only some catalogs and to
    stop the warning, pass `catalogs`.

    Args:
        hosts: The shops' hosts or URLs, such as `shop.example`.
        catalogs: Keys of the catalogs to read. Defaults to all catalogs for the hosts.

    Raises:
        ValueError: `hosts` is empty, a host is malformed, or a catalog key is empty.
    """

    hosts: Sequence[str]
    catalogs: Sequence[str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "hosts", _unique(map(_checked_host, _texts("hosts", self.hosts))))
        if self.catalogs is not None:
            object.__setattr__(self, "catalogs", _keys(self, "catalogs", self.catalogs))

    async def fetch(self, client: OctogenClient) -> CatalogList:
        """List the catalogs for the hosts."""
        return self._joined(await client._driver.run_all(self._flows(client._service)))

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
            raise _combined_error([*errors.values()])
        failure = _temporary_error(errors.values())
        states = [state for each in lists for state in each.catalogs]
        if self.catalogs is not None:
            if not failure:  # otherwise, a missing catalog might belong to the shop that failed
                self._require_chosen(states, [*errors.values()])
            states = [state for state in states if state.catalog in self.catalogs]
        return CatalogList(
            states,
            [line for each in lists for line in each.warnings]
            + [f"{error} This shop's catalogs are left out." for error in errors.values()],
            failure,
            {host: str(error) for host, error in errors.items()},
        )

    def _require_chosen(
        self, states: Sequence[CatalogState], errors: Sequence[OctogenError]
    ) -> None:
        """Raise an error if `catalogs` contains a key that does not belong to any of the hosts."""
        hosts = {state.catalog: state.host for state in states}
        missing = [key for key in self.catalogs or () if key not in hosts]
        if not missing:
            return
        named = [f"{key!r} ({printable(host or '')})" for key, host in hosts.items()]
        text = ", ".join(named[:_MAX_CATALOGS_IN_MESSAGE]) or "none"
        if len(named) > _MAX_CATALOGS_IN_MESSAGE:
            text += f" and {len(named) - _MAX_CATALOGS_IN_MESSAGE:,} more"
        failed = "".join(f" {error}" for error in errors[:_MAX_ERRORS_IN_MESSAGE])
        raise OctogenEmptyCatalogError(
            f"Catalog {missing[0]!r} does not belong to any of the hosts. Catalogs for the hosts: "
            f"{text}. Correct `catalogs` in ShopCatalogs, or add the shop's host.{failed}"
        )


@dataclass(frozen=True)
class NamedCatalogs(CatalogSource):
    """Catalogs given by key.

    No request is sent, so the keys are not checked and the index times are unknown.

    Args:
        keys: Catalog keys.

    Raises:
        ValueError: `keys` is empty or contains an empty key.
    """

    keys: Sequence[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", _keys(self, "keys", self.keys))

    async def fetch(self, client: OctogenClient) -> CatalogList:
        """Return the catalogs given by `keys`."""
        return self._listed()

    def _fetch_blocking(self, client: BlockingClient) -> CatalogList:
        return self._listed()

    def _listed(self) -> CatalogList:
        return CatalogList([CatalogState(key) for key in self.keys])


class Listing:
    """A cache for a service's latest catalog list. Copies and pickles start empty."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: tuple[float, CatalogList | OctogenError] | None = None

    def __reduce__(self) -> tuple[type[Listing], tuple[()]]:
        return type(self), ()

    def fetched_since(self, not_before: float, client: BlockingClient) -> CatalogList:
        """Return a catalog list that was requested at or after `not_before`.

        `not_before` is a time on `Service.clock`. If several threads need a new list, one thread
        requests the list, and all threads share the result or the error.
        """
        service = client.service
        assert isinstance(service, CatalogService)
        while not self._lock.acquire(timeout=_POLL_SECONDS):
            client.check()
        try:
            if self._latest is None or self._latest[0] < not_before:
                requested_at = service.clock()
                try:
                    self._latest = requested_at, fetch_catalogs(client, service.catalog_source)
                except OctogenError as error:
                    self._latest = service.clock(), error  # retries might have taken long
            listed = self._latest[1]
        finally:
            self._lock.release()
        if isinstance(listed, OctogenError):
            raise copy.copy(listed)  # every reader needs its own traceback
        return listed

    def of_run(self, client: BlockingClient) -> CatalogList:
        """Return the catalog list, which several reads in the same run can reuse.

        A list with index times is reused for ten seconds. An older list could waste a read, because
        catalogs can be re-indexed in the meantime. Errors are also reused for ten seconds. Two
        results are reused for the whole run: a list without index times, and the 404 from a service
        that cannot list catalogs.
        """
        latest = self._latest[1] if self._latest else None
        if isinstance(latest, CatalogList):
            changes = any(state.last_indexed_at for state in latest.catalogs)
        else:
            changes = not isinstance(latest, OctogenNotFoundError)
        age = _MAX_LISTING_AGE if changes else math.inf
        return self.fetched_since(client.service.clock() - age, client)


@dataclass(frozen=True)
class CatalogService(Service):
    """A `Service` with settings for reading whole catalogs.

    Up to `concurrency` catalogs or product lookups are read in parallel. A single catalog can also
    be read in parallel parts, which costs up to `max_extra_pages_percent` more pages. If
    `max_extra_pages_percent` is 0, each catalog is read in a single pass over its pages.
    """

    catalog_source: CatalogSource = field(default_factory=GrantedCatalogs)
    listing: Listing = field(default_factory=Listing, compare=False, repr=False)
    concurrency: int = 8
    max_extra_pages_percent: float = MAX_EXTRA_PAGES_PERCENT

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.concurrency < 1:
            raise ValueError(f"`concurrency` must be at least 1; got {self.concurrency}.")
        require_percent("max_extra_pages_percent", self.max_extra_pages_percent)

    def for_run(self, warn: Callable[[str], None], *, reads_several: bool) -> Self:
        """Return a copy of the service for one run.

        If the run reads several partitions in parallel, `concurrency` limits the requests in flight
        for all partitions together.
        """
        service = self.with_log(warn)
        if not reads_several:
            return service
        service.limiter.in_flight.cap(service.concurrency)
        return service.keeping_connections()

    def fetch_catalogs(self) -> CatalogList:
        """List each of the source's catalogs once, and warn about hosts with several catalogs."""
        with BlockingClient(self) as client:
            listed = fetch_catalogs(client, self.catalog_source)
        warnings = [*listed.warnings, *several_of_a_host(self, listed.catalogs)]
        return replace(listed, warnings=warnings)


def fetch_catalogs(client: BlockingClient, source: CatalogSource) -> CatalogList:
    """List the source's catalogs without duplicates."""
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
            *(
                f"Catalog {key!r} is listed more than once. It is read only once."
                for key in repeated
            ),
        ],
        listed.failure,
        listed.shops_left_out,
    )


def _shop_flow(service: Service, host: str) -> Flow[CatalogList | OctogenError]:
    """List the catalogs for a shop's host.

    Errors are returned instead of raised, so that the requests for other hosts continue.
    """
    try:
        return catalogs_of_shop((yield from domain_flow(service, host, paced=True)), host)
    except OctogenError as error:
        return error


def _run_on_event_loop(source: CatalogSource, client: BlockingClient) -> CatalogList:
    """Run a custom source's `fetch` in a new thread, with the deadline for one request.

    A new thread is needed because the calling thread might already run an event loop.
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
    wait_interruptibly(thread, ends_at - service.clock() + _CANCELLATION_SECONDS, client.check)
    if thread.done() and not isinstance(thread.exception(), StoppedError):
        return thread.result()
    client.check()
    raise OctogenTimeoutError(
        f"{type(source).__name__} did not list the catalogs in time. Try again."
    )


def several_by_host(states: Iterable[CatalogState]) -> dict[str, list[CatalogState]]:
    """Return the catalogs for each host that has several catalogs, smallest catalog first."""
    by_host: dict[str, list[CatalogState]] = {}
    for state in sorted(states, key=lambda state: state.product_count or math.inf):
        by_host.setdefault(state.host or "", []).append(state)
    return {host: several for host, several in by_host.items() if len(several) > 1}


def several_of_a_host(service: CatalogService, states: Iterable[CatalogState]) -> Iterator[str]:
    """Yield a warning for each host that has several catalogs.

    Each warning is yielded once per process. There are no warnings if `catalogs` is set.
    """
    source = service.catalog_source
    if not isinstance(source, ShopCatalogs) or source.catalogs is not None:
        return
    for host, several in several_by_host(states).items():
        known = (source, host, tuple(sorted(state.catalog for state in several)))
        if known in _warned:
            continue
        _warned.add(known)
        named = "; ".join(_size(state, service) for state in several)
        yield (
            f"Shop {host!r} has {len(several)} catalogs: {named}. Every catalog is read. If one "
            "catalog contains several shops, the same product can appear in two catalogs with "
            "different uuids. To read only some of the catalogs, pass their keys, such as "
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
        raise ValueError(f"`{name}` must be a list, not the string {values!r}. Pass [{values!r}].")
    texts = list(values or ())
    if not texts:
        raise ValueError(f"`{name}` is empty. Pass at least one value.")
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(
                f"`{name}` contains {text!r}, which is not a string. Put it in quotes."
            )
    return texts


def _keys(source: CatalogSource, name: str, values: Iterable[str]) -> tuple[str, ...]:
    keys = [key.strip() for key in _texts(name, values)]
    if not all(keys):
        raise ValueError(f"{type(source).__name__} contains an empty key. Remove it.")
    return _unique(keys)


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _checked_host(text: str) -> str:
    """Return the host from a shop's URL or host name, in lower case and without `www.`."""
    text = text.strip()
    try:
        host = urlsplit(text if "://" in text else f"//{text}").hostname
    except ValueError:
        host = None
    host = (host or "").rstrip(".").removeprefix("www.")
    if not host or any(character.isspace() or character == "%" for character in host):
        raise ValueError(
            f"`hosts` contains {text!r}, which is not a host. Pass a host such as 'shop.example'."
        )
    return host


def _temporary_error(errors: Iterable[OctogenError]) -> OctogenError | None:
    """Return the first error that might be temporary. `domain_not_covered` is never temporary."""
    for error in errors:
        if not (isinstance(error, OctogenNotFoundError) and error.detail == "domain_not_covered"):
            return error
    return None


def _combined_error(errors: Sequence[OctogenError]) -> OctogenError:
    """Combine the hosts' errors into one error. A temporary error's type takes precedence."""
    first = _temporary_error(errors) or errors[0]
    if len(errors) == 1:
        return first
    one_per_type = list({type(each): each for each in reversed(errors)}.values())
    shown = sorted(errors, key=lambda each: each not in one_per_type)
    texts = " ".join(str(each) for each in shown[:_MAX_ERRORS_IN_MESSAGE])
    text = f"None of the {len(errors)} shops could be read. {texts}"
    return first.with_message(text) if isinstance(first, OctogenAPIError) else type(first)(text)
