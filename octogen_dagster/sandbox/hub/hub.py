"""The hub of a sandbox: Analytics Hub, Octogen's MCP tools and the login, over one state."""

import asyncio
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.routing import Mount, Route

from octogen_dagster.sandbox.hub.analytics_hub import AnalyticsHub
from octogen_dagster.sandbox.hub.cells import HubCells
from octogen_dagster.sandbox.hub.faults import HubFault, HubFaults
from octogen_dagster.sandbox.hub.http import RPC, TOKENS, Door
from octogen_dagster.sandbox.hub.log import HubCall, HubLog
from octogen_dagster.sandbox.hub.mcp_server import MCP_PATH, Tools, create_mcp_app
from octogen_dagster.sandbox.hub.names import ExchangeName
from octogen_dagster.sandbox.hub.oauth import (
    CLIENT_ID,
    TOKEN_PATH,
    AuthorizationServer,
    login_routes,
    token_app,
)
from octogen_dagster.sandbox.hub.settings import HubSettings
from octogen_dagster.sandbox.hub.state import AT_ONCE, GrantAfter, HubState, Subscription

_HOST = "127.0.0.1"
_EXCHANGE = ExchangeName("octogen-sandbox", "us", "catalogs")


class Hub:
    """Catalogs shared over BigQuery Analytics Hub, as `Sandbox(hub=True).hub`.

    ```
    with Sandbox(hub=True) as sandbox:
        sandbox.hub.share("northpeak", grant=GrantAfter(denials=2))
        ...
        subscribed = [call for call in sandbox.hub.calls if call.method == "SubscribeListing"]
        assert [call.outcome for call in subscribed] == ["PERMISSION_DENIED"] * 2 + ["OK"]
    ```

    Three services of one process share one state: the gRPC service of Analytics Hub, where
    listings are subscribed to; Octogen's MCP server, which says what is shared with whom; and
    the login that gives out the tokens for MCP. Nothing is shared at first. Everything can be
    read and changed from any thread while it runs.

    Args:
        spend: Takes a request from the organisation's rate limit; returns None, or the seconds
            after which there is one again.

    Attributes:
        settings: How it answers; may be changed at any time.
    """

    def __init__(self, spend: Callable[[], int | None]) -> None:
        self.settings = HubSettings()
        self._state = HubState()
        self._state.open_exchange(_EXCHANGE)
        self._cells = HubCells(self._state)
        self._faults = HubFaults()
        self._log = HubLog()
        self._login = AuthorizationServer(self.settings)
        self._tools = Tools(self._cells, self._faults, spend)
        self._analytics_hub = AnalyticsHub(self._state, self.settings, self._faults, self._log)
        self._port: int | None = None
        self._http_port: int | None = None

    @property
    def endpoint(self) -> str:
        """Host and port of Analytics Hub: gRPC without TLS. Known once the sandbox runs."""
        return f"{_HOST}:{self._running(self._port)}"

    @property
    def exchange(self) -> str:
        """The resource name of the data exchange that catalogs are shared in by default."""
        return str(_EXCHANGE)

    @property
    def authorization_server(self) -> str:
        """The issuer of the login: `http://127.0.0.1:<port>`."""
        return f"http://{_HOST}:{self._running(self._http_port)}"

    @property
    def mcp_url(self) -> str:
        """Where Octogen's MCP server is."""
        return f"{self.authorization_server}{MCP_PATH}"

    @property
    def token_endpoint(self) -> str:
        """Where a refresh token is exchanged for an access token."""
        return f"{self.authorization_server}{TOKEN_PATH}"

    @property
    def client_id(self) -> str:
        """A public client that is registered already."""
        return CLIENT_ID

    @property
    def refresh_token(self) -> str:
        """A refresh token of that client; after a rotation, the one that replaced it."""
        return self._login.refresh_token

    @property
    def access_token(self) -> str:
        """An access token of that client that lives as long as any, from the start on."""
        return self._login.access_token

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that send clients to the hub."""
        return {
            "OCTOGEN_MCP_URL": self.mcp_url,
            "OCTOGEN_MCP_TOKEN_ENDPOINT": self.token_endpoint,
            "OCTOGEN_MCP_CLIENT_ID": self.client_id,
            "OCTOGEN_MCP_REFRESH_TOKEN": self.refresh_token,
            "ANALYTICS_HUB_EMULATOR_HOST": self.endpoint,
        }

    @property
    def calls(self) -> list[HubCall]:
        """The latest 20,000 calls of all three services in order of arrival."""
        return self._log.calls()

    @property
    def subscriptions(self) -> list[Subscription]:
        """All subscriptions of all projects in order of creation."""
        return self._state.subscriptions()

    def datasets(self, project: str) -> dict[str, str | None]:
        """Dataset id to the name of its subscription; None for an ordinary dataset."""
        return self._state.datasets(project)

    def share(
        self,
        catalog: str,
        *,
        grant: GrantAfter = AT_ONCE,
        project: str = _EXCHANGE.project,
        location: str = _EXCHANGE.location,
        exchange: str = _EXCHANGE.exchange,
        listing_id: str | None = None,
    ) -> str:
        """Share a catalog: its listing appears, and a cell for each subscriber.

        Args:
            catalog: Its key. The sandbox need not serve it over REST.
            grant: When the right to subscribe arrives.
            project: The id of the project that publishes it.
            location: Where the data is.
            exchange: The data exchange that the listing is in.
            listing_id: By default the key with `_` for all but letters, digits, `_` and `-`.

        Returns:
            The resource name of the listing.

        Raises:
            ValueError: It is shared already, another catalog has that listing, or the listing
                cannot have that id.
        """
        in_exchange = ExchangeName(project, location, exchange)
        return str(self._state.share(catalog, grant, in_exchange, listing_id).name)

    def listing_resource(self, catalog: str) -> str:
        """The resource name of a catalog's listing.

        Raises:
            LookupError: The catalog was never shared.
        """
        return str(self._state.listing_of(catalog).name)

    def grant_access(self, catalog: str) -> None:
        """Give the right to subscribe to a catalog now.

        Raises:
            LookupError: The catalog was never shared.
        """
        self._state.grant_access(catalog)

    def revoke_access(self, catalog: str) -> None:
        """Take that right away: no further subscription, and those there are become inactive.

        The linked datasets stay, as names that are taken.

        Raises:
            LookupError: The catalog was never shared.
        """
        self._state.revoke_access(catalog)

    def make_stale(self, catalog: str) -> None:
        """Let the active subscriptions of a catalog be stale, until they are refreshed.

        Raises:
            LookupError: The catalog was never shared, or has no active subscription.
        """
        self._state.make_stale(catalog)

    def remove_listing(self, catalog: str) -> None:
        """Delete the listing of a catalog; subscriptions become inactive.

        Raises:
            LookupError: The catalog was never shared.
        """
        self._state.remove_listing(catalog)

    def add_dataset(self, project: str, dataset: str) -> None:
        """Let a project have an ordinary dataset, so that its id is taken.

        Raises:
            ValueError: It has one of that id, or it is no dataset id.
        """
        self._state.add_dataset(project, dataset)

    def disable_subscriber(self, principal: str) -> None:
        """Disable the subscribers of a principal.

        Raises:
            LookupError: It is not registered.
        """
        self._cells.disable(principal)

    def issue_access_token(self) -> str:
        """A new access token of the built-in client."""
        return self._login.issue_access_token()

    def expire_access_tokens(self) -> None:
        """Let all access tokens that were given out be expired; refresh tokens stay good."""
        self._login.expire_access_tokens()

    def inject(self, fault: HubFault) -> None:
        """Let `fault` happen from now on, after those that are in force already."""
        self._faults.inject(fault)

    def clear_faults(self) -> None:
        """Let everything work again."""
        self._faults.clear()

    def start(self, http_port: int, port: int) -> None:
        """Begin to serve Analytics Hub; `http_app` serves the rest.

        Args:
            http_port: Where `http_app` will be.
            port: Of Analytics Hub; 0 for a free one.

        Raises:
            OSError: The port is taken.
        """
        self._port = self._analytics_hub.start(port)
        self._http_port = http_port

    def stop(self) -> None:
        """End what `start` began."""
        self._analytics_hub.stop()

    def http_app(self, rest: Starlette, closing: asyncio.Event) -> Starlette:
        """An application with the REST API, MCP and the login. It needs its lifespan.

        Args:
            rest: The REST API.
            closing: Set when the server goes down.
        """
        origin = self.authorization_server
        mcp = create_mcp_app(self._tools, self._login, origin)

        watch = (self._faults, self._log, closing)
        return Starlette(
            routes=[
                *rest.routes,
                *login_routes(self._login, origin),
                Route(TOKEN_PATH, Door(token_app(self._login), TOKENS, *watch)),
                Route(MCP_PATH, Door(mcp, RPC, *watch)),
                Mount("/", mcp),
            ],
            lifespan=mcp.router.lifespan_context,
        )

    def _running(self, port: int | None) -> int:
        if port is None:
            raise RuntimeError("the hub has no address before the sandbox runs: use it in a `with`")
        return port
