"""Runs the sandbox as a server, in the background or in the foreground."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING, Any, Self, get_args

from octogen_dagster.sandbox import DEFAULT_API_KEY, DEFAULT_PORT, HOST
from octogen_dagster.sandbox.catalog import CatalogChoice, Catalogs
from octogen_dagster.sandbox.faults import ActiveFaults, Fault

try:
    import uvicorn

    from octogen_dagster.sandbox.app import Generation, create_app
    from octogen_dagster.sandbox.state import Account, ReceivedRequest, State, TokenBucket
    from octogen_dagster.sandbox.url_lists import UrlLists
except ModuleNotFoundError as error:
    missing = (error.name or "a package").split(".")[0]
    raise ImportError(
        f'the sandbox needs {missing}. Add "octogen-dagster[sandbox]" to your project\'s '
        "dependencies."
    ) from error

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from octogen_dagster.sandbox.hub import Hub

_LAST_RESPONSE_TIMEOUT = 1
_KEY_VARIABLES = ("STOREROUTER_API_KEY", "OCTOGEN_PLATFORM_API_KEY", "OCTO_API_KEY")


class Sandbox:
    """A local Octogen: the REST API on a local port, with generated products.

    Use it to try out or test a pipeline without an API key or network access:

    ```
    with Sandbox(catalogs={"northpeak": 250}, faults=[Fault("status", 503, times=2)]) as sandbox:
        client = OctogenClient(api_key=sandbox.api_key, base_url=sandbox.base_url)
        ...
        assert [request.status for request in sandbox.requests] == [503, 503, 200]
    ```

    Products depend only on `seed` and on the number of days that have passed (see `next_day`). They
    are not stored in memory. They look like real products: some have no price, rating, brand or
    image, some brands are spelled differently from their canonical name, and some titles contain
    quotes and non-ASCII letters. Unknown values are null or absent wherever the contract allows it.

    Keywords, facets, price bounds, paging, the rate limit and errors follow Octogen's contract. For
    example, a search with keywords repeats its first page's products on later pages, and an invalid
    cursor restarts at page 1. Keywords are matched literally, and lookups find only products in the
    catalogs. To make requests fail, pass `faults`, or call `inject` while the sandbox runs. All
    attributes can be read and changed from any thread while the sandbox runs. An unknown catalog or
    product raises LookupError.

    Args:
        catalogs: A number of built-in catalogs, a list of catalog keys, or a mapping from catalog
            keys to numbers of products. For a key that is not built in, a shop is invented.
            `northpeak.outlet` is a second catalog on the `northpeak` site.
        products: Number of products in each catalog for which `catalogs` does not set a number.
        generation: The contract to follow. "current" is today's service, which has no list of
            catalogs but has `GET /domains/{host}` and `GET /stores/{domain}`. The older "seed" has
            `GET /catalogs` and the field `catalog`.
        seed: Seed for the generated products.
        day: The current day. The first day is 1. Starting on a later day is like calling `next_day`
            `day - 1` times.
        api_key: The only API key that is accepted.
        port: The port on 127.0.0.1; 0 selects a free port.
        requests_per_minute: The rate limit. At first, all requests of a minute are available.
        faults: The initial faults.
        credit_usd: The organization's credit in US dollars; None means unlimited. Once spent,
            searches and lookups return 402.
        hub: Also serve Analytics Hub, MCP and the views in linked datasets. See the property `hub`.
        shop_routes: Shop routes in the current generation: "domains", "stores".
        url_list_seconds: Seconds until a new URL list becomes active, and until a deleted URL list
            disappears. With `math.inf`, both happen at the next call of `next_day`.

    Raises:
        ValueError: A number is out of range, or a catalog key is empty.
        ImportError: A package that the hub needs is not installed.
        OSError: On entering, if `port` cannot be used.
    """

    def __init__(
        self,
        *,
        catalogs: CatalogChoice = 5,
        products: int = 250,
        generation: Generation = "current",
        seed: int = 1,
        day: int = 1,
        api_key: str = DEFAULT_API_KEY,
        port: int = 0,
        requests_per_minute: int = 600_000,
        faults: Sequence[Fault] = (),
        credit_usd: float | None = None,
        hub: bool = False,
        shop_routes: Sequence[str] = ("domains", "stores"),
        url_list_seconds: float = 1.0,
    ) -> None:
        if generation not in get_args(Generation):
            names = ", ".join(map(repr, get_args(Generation)))
            raise ValueError(f"generation must be one of {names}, not {generation!r}")
        if day < 1:
            raise ValueError(f"day must be 1 or more, not {day}")
        last_port = 65534 if hub else 65535
        if not 0 <= port <= last_port:
            raise ValueError(f"port must be 0 to {last_port}, not {port}")
        self._generation = generation
        served = Catalogs(catalogs, products, seed)
        self._hub = _make_hub(served) if hub else None
        self._state = State(
            api_key=api_key,
            catalogs=served,
            url_lists=UrlLists(served, self._hub, url_list_seconds),
            limiter=TokenBucket(requests_per_minute),
            account=Account(credit_usd),
            faults=ActiveFaults(faults),
            shop_routes=shop_routes,
        )
        for _ in range(1, day):
            self.next_day()
        self._app = create_app(self._state, generation)
        self._wanted_port = port
        self._port: int | None = None
        self._running = ExitStack()

    @property
    def base_url(self) -> str:
        """The base URL of the REST API: `http://127.0.0.1:<port>/v1`."""
        if self._port is None:
            raise RuntimeError("the sandbox has no URL until it runs: use it in a `with` block")
        return f"http://{HOST}:{self._port}/v1"

    @property
    def api_key(self) -> str:
        """The accepted API key."""
        return self._state.api_key

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that point resources and scans to the sandbox.

        In the current generation, `OCTOGEN_SHOP_HOSTS` contains the hosts of the sandbox's shops,
        for `ShopCatalogs`.
        """
        keys = dict.fromkeys(_KEY_VARIABLES, self.api_key)
        rest = keys | {"OCTOGEN_BASE_URL": self.base_url}
        if self._generation == "current":
            rest["OCTOGEN_SHOP_HOSTS"] = ",".join(self.hosts)
        return rest if self._hub is None else rest | self._hub.environment

    @property
    def hosts(self) -> list[str]:
        """The hosts of the shops in the sandbox's catalogs, for `GET /domains/{host}`."""
        return list(dict.fromkeys(catalog.shop.domain for catalog in self._state.catalogs.all()))

    @property
    def hub(self) -> Hub:
        """Catalogs and URL lists shared over BigQuery Analytics Hub, and their views.

        If `port` is not 0, Analytics Hub listens on the next port.
        """
        if self._hub is None:
            raise RuntimeError("this sandbox has no hub: create it with Sandbox(hub=True)")
        return self._hub

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The latest 20,000 requests to the REST API, in order of arrival."""
        return list(self._state.log)

    @property
    def charged_usd(self) -> float:
        """Total cost of searches and lookups, in US dollars."""
        return self._state.account.charged_usd

    def inject(self, fault: Fault) -> None:
        """Add a fault after the active ones."""
        self._state.faults.inject(fault)

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._state.faults.clear()

    def touch(self, catalog: str) -> None:
        """Advance a catalog's `lastIndexedAt` by one day, as if it had been re-indexed."""
        self._state.catalogs.touch(catalog)

    def next_day(self) -> None:
        """Advance by one day. Every catalog is re-indexed with changed products.

        One in fifty products is new, and about as many disappear. One in twenty prices changes, and
        one in forty products sells out or comes back. New URL lists become active, deleted URL
        lists disappear, and all lists are exported.
        """
        self._state.catalogs.next_day()
        self._state.url_lists.next_day()

    def set_price(self, url: str, price: float) -> None:
        """Set the price of the product with a `productUrl`, for example to a wrong price."""
        self._state.catalogs.set_price(url, price)

    def grant(self, catalog: str, *, products: int | None = None) -> None:
        """Add or replace a catalog, for example to change its number of products."""
        self._state.catalogs.grant(catalog, products)

    def revoke(self, catalog: str) -> None:
        """Remove a catalog.

        A search with the removed catalog in `catalog` returns 404. With the catalog in `catalogs`,
        it finds nothing.
        """
        self._state.catalogs.revoke(catalog)

    def set_rate_limit(self, requests_per_minute: int) -> None:
        """Change the rate limit, and make all requests of a minute available again."""
        self._state.limiter = TokenBucket(requests_per_minute)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            server, listener = stack.enter_context(self._bound())
            # Requests that arrive before the server is ready wait in the listener's queue.
            thread = Thread(
                target=server.run, args=([listener],), name="octogen-sandbox", daemon=True
            )
            thread.start()
            # Called in reverse order: stop the server, then wait for it.
            stack.callback(thread.join)
            stack.callback(self._state.closing.set_result, None)
            self._running = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    @contextmanager
    def _bound(self) -> Iterator[tuple[_Server, socket.socket]]:
        """Yield a server and its listening socket. Analytics Hub is served during the block."""
        self._state.closing = Future()
        with _listen(self._wanted_port) as listener, ExitStack() as stack:
            self._port = listener.getsockname()[1]
            app: ASGIApp = self._app
            if self._hub is not None:
                next_port = self._wanted_port and self._wanted_port + 1
                stack.enter_context(self._hub.serving(self._port, next_port))
                app = self._hub.http_app(app)
            yield _Server(app, self._state.closing), listener


def serve(*, announce: Callable[[Sandbox], None] | None = None, **settings: Any) -> None:
    """Run a sandbox in the foreground until SIGINT or SIGTERM, by default on port 8787."""
    sandbox = Sandbox(**{"port": DEFAULT_PORT, **settings})
    with sandbox._bound() as (server, listener), suppress(KeyboardInterrupt):
        for catalog in sandbox._state.catalogs.all() if sandbox._hub else ():
            sandbox.hub.share(catalog.key)
        if announce is not None:
            announce(sandbox)
        server.run([listener])


class _Server(uvicorn.Server):
    """A uvicorn server that stops immediately, without uvicorn's usual pauses."""

    def __init__(self, app: ASGIApp, closing: Future[None]) -> None:
        logging.getLogger("uvicorn.error").addFilter(_hide_cut_bodies)
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            ws="none",
            server_header=False,
        )
        super().__init__(config)
        self._closing = closing

    async def main_loop(self) -> None:
        until_signal = asyncio.ensure_future(super().main_loop())
        until_stop = asyncio.wrap_future(self._closing)
        await asyncio.wait((until_signal, until_stop), return_when=asyncio.FIRST_COMPLETED)
        until_signal.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if not self._closing.done():
            self._closing.set_result(None)
        for server in self.servers:
            server.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(list(state.tasks), timeout=_LAST_RESPONSE_TIMEOUT)
        await self.lifespan.shutdown()


def _hide_cut_bodies(record: logging.LogRecord) -> bool:
    """Hide uvicorn's message about an incomplete body, which a `cut` fault causes."""
    return record.msg != "ASGI callable returned without completing response."


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        reason = (
            f"cannot listen on {HOST}:{port}: {os.strerror(error.errno or 0)}. "
            "Choose another port, or 0 for a free one."
        )
        raise OSError(error.errno, reason) from error


def _make_hub(catalogs: Catalogs) -> Hub:
    try:
        from octogen_dagster.sandbox.hub import Hub
    except ModuleNotFoundError as error:
        missing = (error.name or "a package").split(".")[0]
        raise ImportError(
            f"the sandbox's hub needs {missing}. "
            'Add "octogen-dagster[sandbox,bigquery,mcp]" to your project\'s dependencies.'
        ) from error
    return Hub(catalogs)
