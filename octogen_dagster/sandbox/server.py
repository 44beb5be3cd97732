"""A sandbox as a running server, in the background of a program or in the foreground."""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Event, Thread
from types import TracebackType
from typing import TYPE_CHECKING

from typing_extensions import Self

from octogen_dagster.sandbox.faults import Fault, Faults
from octogen_dagster.sandbox.request_log import ReceivedRequest
from octogen_dagster.sandbox.rest.cursors import Cursors
from octogen_dagster.sandbox.rest.grants import CatalogChoice, CatalogGrants
from octogen_dagster.sandbox.rest.limiter import TokenBucket
from octogen_dagster.sandbox.rest.operations import Operations
from octogen_dagster.sandbox.rest.request_bodies import Generation

try:
    import uvicorn
    from starlette.applications import Starlette

    from octogen_dagster.sandbox.rest.app import Gateway, create_app
except ModuleNotFoundError as error:
    missing = (error.name or "a package").split(".")[0]
    raise ImportError(
        f"the sandbox needs {missing}: pip install 'octogen-dagster[sandbox]'"
    ) from error

if TYPE_CHECKING:
    from octogen_dagster.sandbox.hub.hub import Hub

DEFAULT_API_KEY = "octo_live_00000000000000000000000000000000_c2FuZGJveC1rZXktbm90LWEtc2VjcmV0"
DEFAULT_PORT = 8787
_HOST = "127.0.0.1"
_START_TIMEOUT = 30
_LAST_RESPONSE_TIMEOUT = 1


class Sandbox:
    """A local Octogen: the REST API on a port of this machine, full of made-up products.

    Use it to try a pipeline, and to test one, without a key and without the network:

    ```
    with Sandbox(catalogs={"northpeak": 250}, faults=[Fault("status", 503, times=2)]) as sandbox:
        client = OctogenClient(api_key=sandbox.api_key, base_url=sandbox.base_url)
        ...
        assert [request.status for request in sandbox.requests] == [503, 503, 200]
    ```

    The products are the same on every run for the same `seed`, cost no memory however many
    there are, and look like real ones: some have no price, no rating, no brand or no
    picture, some brands are spelled differently from their canonical name, and some titles
    hold quotes and letters outside ASCII. Keywords, facets, price bounds, paging, rate
    limit and errors follow Octogen's contract; in particular a search with keywords shows
    the products of its first page a second time on the later ones, and a cursor that is
    not valid starts again at page 1. With `faults`, or `inject` while it runs, things go
    wrong on purpose. Everything can be read and changed from any thread while it runs.

    Args:
        catalogs: That many of the built-in catalogs, or the keys of the catalogs, or their
            keys and numbers of products. A key that is not built in gets an invented shop.
        products: The number of products of a catalog for which `catalogs` does not say.
        generation: Which contract it speaks: "seed" has `GET /catalogs` and `catalog`,
            "current" has `catalogs` and images with their measures.
        seed: Another seed, other products.
        api_key: The only key it accepts.
        port: Where it listens on 127.0.0.1; 0 for a free port.
        requests_per_minute: How many requests its rate limiter holds; it starts full.
        faults: What goes wrong, and for which requests.
        hub: Whether it has Analytics Hub, MCP and a login as well: see `hub`.

    Raises:
        ValueError: A number is out of its range, or a catalog key is empty.
        ImportError: A package for the hub is not installed.
        OSError: On entering, when it cannot listen on `port`.
    """

    def __init__(
        self,
        *,
        catalogs: CatalogChoice = 8,
        products: int = 250,
        generation: Generation = "seed",
        seed: int = 1,
        api_key: str = DEFAULT_API_KEY,
        port: int = 0,
        requests_per_minute: int = 600_000,
        faults: Sequence[Fault] = (),
        hub: bool = False,
    ) -> None:
        if generation not in ("seed", "current"):
            raise ValueError(f"generation must be 'seed' or 'current', not {generation!r}")
        last_port = 65534 if hub else 65535
        if not 0 <= port <= last_port:
            raise ValueError(f"port must be 0 to {last_port}, not {port}")
        self._grants = CatalogGrants(catalogs, products, seed)
        self._gateway = Gateway(api_key, TokenBucket(requests_per_minute), Faults(faults))
        cursors = Cursors(secret=f"octogen sandbox {seed}".encode())
        self._app = create_app(self._gateway, Operations(generation, self._grants, cursors))
        self._hub = _make_hub(self._gateway) if hub else None
        self._wanted_port = port
        self._port: int | None = None
        self._stop: Callable[[], None] | None = None

    @property
    def base_url(self) -> str:
        """Where its API is: `http://127.0.0.1:<port>/v1`. Known once it was entered."""
        if self._port is None:
            raise RuntimeError("the sandbox has no address before it runs: use it in a `with`")
        return f"http://{_HOST}:{self._port}/v1"

    @property
    def api_key(self) -> str:
        """The key it accepts."""
        return self._gateway.api_key

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that send this package's resources and scans to the sandbox."""
        rest = {"OCTO_API_KEY": self.api_key, "OCTOGEN_BASE_URL": self.base_url}
        return rest if self._hub is None else rest | self._hub.environment

    @property
    def hub(self) -> "Hub":
        """Catalogs shared over BigQuery Analytics Hub.

        With a `port` other than 0, Analytics Hub is on the port after it.

        Raises:
            RuntimeError: The sandbox was made without it.
        """
        if self._hub is None:
            raise RuntimeError("this sandbox has no hub: make it with Sandbox(hub=True)")
        return self._hub

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The latest 10,000 requests in order of arrival."""
        return self._gateway.log.requests()

    def inject(self, fault: Fault) -> None:
        """Let `fault` happen from now on, after those that are in force already."""
        self._gateway.faults.inject(fault)

    def clear_faults(self) -> None:
        """Let everything work again."""
        self._gateway.faults.clear()

    def touch(self, catalog: str) -> None:
        """Move the catalog's `lastIndexedAt` forward by a day, as an index run would.

        Raises:
            LookupError: The catalog is not granted.
        """
        self._grants.touch(catalog)

    def grant(self, catalog: str, *, products: int | None = None) -> None:
        """Let a new catalog appear, or replace one by one with another number of products.

        Args:
            catalog: Its key.
            products: By default the number that the sandbox was made with.
        """
        self._grants.grant(catalog, products)

    def revoke(self, catalog: str) -> None:
        """Take a catalog away: it is no longer listed, and a search in it is a 404.

        Raises:
            LookupError: The catalog is not granted.
        """
        self._grants.revoke(catalog)

    def set_rate_limit(self, requests_per_minute: int) -> None:
        """Put a full bucket of another size in the place of the rate limiter's."""
        self._gateway.limiter = TokenBucket(requests_per_minute)

    def __enter__(self) -> Self:
        server = self._bind()
        thread = Thread(target=server.run, name="octogen-sandbox", daemon=True)
        thread.start()
        if not server.ready.wait(_START_TIMEOUT):
            raise RuntimeError("the sandbox did not start; the log says why")

        def stop() -> None:
            server.stop()
            thread.join()
            self._stop_hub()

        self._stop = stop
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._stop is not None:
            self._stop()
            self._stop = None

    def _bind(self) -> "_Server":
        self._gateway.closing = asyncio.Event()
        listener = _listen(self._wanted_port)
        self._port = listener.getsockname()[1]
        app = self._app
        if self._hub is not None:
            try:
                self._hub.start(self._port, self._wanted_port and self._wanted_port + 1)
            except OSError:
                listener.close()
                raise
            app = self._hub.http_app(app, self._gateway.closing)
        return _Server(app, listener, self._gateway.closing)

    def _stop_hub(self) -> None:
        if self._hub is not None:
            self._hub.stop()


def serve(
    *,
    catalogs: CatalogChoice = 8,
    products: int = 250,
    generation: Generation = "seed",
    seed: int = 1,
    api_key: str = DEFAULT_API_KEY,
    port: int = DEFAULT_PORT,
    requests_per_minute: int = 600_000,
    faults: Sequence[Fault] = (),
    hub: bool = False,
    announce: Callable[[Sandbox], None] | None = None,
) -> None:
    """Run a sandbox in the foreground until SIGINT or SIGTERM.

    Args:
        hub: Whether all its catalogs are shared over Analytics Hub as well.
        announce: Called with the sandbox once its address is taken, to say where it is.

    The other arguments, and the errors, are those of `Sandbox`.
    """
    sandbox = Sandbox(
        catalogs=catalogs,
        products=products,
        generation=generation,
        seed=seed,
        api_key=api_key,
        port=port,
        requests_per_minute=requests_per_minute,
        faults=faults,
        hub=hub,
    )
    server = sandbox._bind()
    if hub:
        for catalog in sandbox._grants.select():
            sandbox.hub.share(catalog.key)
    if announce is not None:
        announce(sandbox)
    with suppress(KeyboardInterrupt):
        server.run()
    sandbox._stop_hub()


def _make_hub(gateway: Gateway) -> "Hub":
    try:
        from octogen_dagster.sandbox.hub.hub import Hub
    except ModuleNotFoundError as error:
        missing = (error.name or "a package").split(".")[0]
        raise ImportError(
            f"the hub of the sandbox needs {missing}: pip install 'octogen-dagster[sandbox,mcp]'"
        ) from error

    def spend() -> int | None:
        limiter = gateway.limiter
        return None if limiter.take() else limiter.retry_after

    return Hub(spend)


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        reason = f"cannot listen on {_HOST}:{port}: {error.strerror}"
        raise OSError(error.errno, reason) from error
    return listener


def _not_a_cut(record: logging.LogRecord) -> bool:
    """False for the complaint of uvicorn about a body that a fault cut off on purpose."""
    return record.msg != "ASGI callable returned without completing response."


class _Server(uvicorn.Server):
    """A uvicorn that says when it is ready and stops without its usual pauses."""

    def __init__(self, app: Starlette, listener: socket.socket, closing: asyncio.Event) -> None:
        logging.getLogger("uvicorn.error").addFilter(_not_a_cut)
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="auto",
                ws="none",
                server_header=False,
            )
        )
        self.ready = Event()
        self._listener = listener
        self._closing = closing
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        super().run(sockets=sockets or [self._listener])

    def stop(self) -> None:
        """Ask it to stop, from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._closing.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self.ready.set()

    async def main_loop(self) -> None:
        until_signal = asyncio.ensure_future(super().main_loop())
        until_stop = asyncio.ensure_future(self._closing.wait())
        await asyncio.wait((until_signal, until_stop), return_when=asyncio.FIRST_COMPLETED)
        until_signal.cancel()
        until_stop.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._closing.set()
        for server in self.servers:
            server.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(list(state.tasks), timeout=_LAST_RESPONSE_TIMEOUT)
        await self.lifespan.shutdown()
