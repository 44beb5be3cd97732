"""The hub of a sandbox: Analytics Hub, Octogen's MCP tools and the login, over one store."""

import asyncio
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from octogen_dagster.sandbox.fault_model import ActiveFaults
from octogen_dagster.sandbox.hub.analytics_hub import AnalyticsHub
from octogen_dagster.sandbox.hub.cells import HubCells
from octogen_dagster.sandbox.hub.endpoints import RPC, TOKENS, Endpoint
from octogen_dagster.sandbox.hub.faults import HubFault
from octogen_dagster.sandbox.hub.grpc_server import GrpcServer
from octogen_dagster.sandbox.hub.mcp_server import MCP_PATH, create_mcp_app
from octogen_dagster.sandbox.hub.names import ExchangeName
from octogen_dagster.sandbox.hub.oauth import (
    CLIENT_ID,
    TOKEN_PATH,
    AuthorizationServer,
    login_routes,
    token_app,
)
from octogen_dagster.sandbox.hub.settings import HubSettings
from octogen_dagster.sandbox.hub.state import AT_ONCE, GrantAfter, Subscription
from octogen_dagster.sandbox.hub.store import HubStore
from octogen_dagster.sandbox.hub.tools import Tools
from octogen_dagster.sandbox.request_log import HubCall, RequestLog

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

    Three services share one store: the gRPC service of Analytics Hub, where listings are
    subscribed to; Octogen's MCP server, which says what is shared with whom; and the login, which
    issues the tokens for MCP. Nothing is shared at first. Everything can be read and changed from
    any thread while the sandbox runs.

    Args:
        spend: Takes a request from the organisation's rate limit. Returns None, or the number of
            seconds after which there is a request again.

    Attributes:
        settings: How the services respond. May be changed at any time.
    """

    def __init__(self, spend: Callable[[], int | None]) -> None:
        self.settings = HubSettings()
        self._store = HubStore()
        self._store.open_exchange(_EXCHANGE)
        self._cells = HubCells(self._store)
        self._faults = ActiveFaults[HubFault]()
        self._log = RequestLog[HubCall]()
        self._login = AuthorizationServer(self.settings)
        self._tools = Tools(self._cells, self._faults, spend)
        analytics_hub = AnalyticsHub(self._store, self.settings)
        self._grpc = GrpcServer(analytics_hub.services, self._faults, self._log)
        self._port: int | None = None
        self._http_port: int | None = None

    @property
    def endpoint(self) -> str:
        """The host and port of Analytics Hub, which speaks gRPC without TLS.

        Raises:
            RuntimeError: The sandbox was never started. This holds for all addresses.
        """
        return f"{_HOST}:{self._running(self._port)}"

    @property
    def exchange(self) -> str:
        """The resource name of the data exchange in which catalogs are shared by default."""
        return str(_EXCHANGE)

    @property
    def authorization_server(self) -> str:
        """The issuer of the login: `http://127.0.0.1:<port>`."""
        return f"http://{_HOST}:{self._running(self._http_port)}"

    @property
    def mcp_url(self) -> str:
        """The URL of Octogen's MCP server."""
        return f"{self.authorization_server}{MCP_PATH}"

    @property
    def token_endpoint(self) -> str:
        """The URL at which a refresh token is exchanged for an access token."""
        return f"{self.authorization_server}{TOKEN_PATH}"

    @property
    def client_id(self) -> str:
        """The id of the built-in public client."""
        return CLIENT_ID

    @property
    def refresh_token(self) -> str:
        """A valid refresh token of the built-in client; after a rotation, the new one."""
        return self._login.refresh_token

    @property
    def access_token(self) -> str:
        """An access token of the built-in client, issued when the hub was made."""
        return self._login.access_token

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that point clients to the hub."""
        return {
            "OCTOGEN_MCP_URL": self.mcp_url,
            "OCTOGEN_MCP_TOKEN_ENDPOINT": self.token_endpoint,
            "OCTOGEN_MCP_CLIENT_ID": self.client_id,
            "OCTOGEN_MCP_REFRESH_TOKEN": self.refresh_token,
            "ANALYTICS_HUB_EMULATOR_HOST": self.endpoint,
        }

    @property
    def calls(self) -> list[HubCall]:
        """The latest 20,000 calls of all three services, in order of arrival."""
        return self._log.entries()

    @property
    def subscriptions(self) -> list[Subscription]:
        """All subscriptions of all projects, in order of creation."""
        return self._store.subscriptions()

    def datasets(self, project: str) -> dict[str, str | None]:
        """Return dataset id to the name of its subscription; None for an ordinary dataset."""
        return self._store.datasets(project)

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
        """Share a catalog: create its listing and a cell for each subscriber.

        Args:
            catalog: The catalog key. The sandbox need not serve it over REST.
            grant: The events that give the right to subscribe.
            project: The id of the project that publishes it.
            location: The location of the data.
            exchange: The data exchange that the listing is in.
            listing_id: By default the key with `_` for all but letters, digits, `_` and `-`.

        Returns:
            The resource name of the listing.

        Raises:
            ValueError: The catalog is shared already, another catalog has that listing, or the
                listing id is not valid.
        """
        in_exchange = ExchangeName(project, location, exchange)
        return str(self._store.share(catalog, grant, in_exchange, listing_id).name)

    def listing_resource(self, catalog: str) -> str:
        """Return the resource name of a catalog's listing.

        Raises:
            LookupError: The catalog was never shared.
        """
        return str(self._store.listing_of(catalog).name)

    def grant_access(self, catalog: str) -> None:
        """Give the right to subscribe to a catalog now.

        Raises:
            LookupError: The catalog was never shared.
        """
        self._store.grant_access(catalog)

    def revoke_access(self, catalog: str) -> None:
        """Take the right to subscribe away, and make existing subscriptions inactive.

        The ids of the linked datasets stay taken.

        Raises:
            LookupError: The catalog was never shared.
        """
        self._store.revoke_access(catalog)

    def make_stale(self, catalog: str) -> None:
        """Make the active subscriptions of a catalog stale, until they are refreshed.

        Raises:
            LookupError: The catalog was never shared, or has no active subscription.
        """
        self._store.make_stale(catalog)

    def remove_listing(self, catalog: str) -> None:
        """Delete the listing of a catalog, and make its subscriptions inactive.

        Raises:
            LookupError: The catalog was never shared.
        """
        self._store.remove_listing(catalog)

    def add_dataset(self, project: str, dataset: str) -> None:
        """Add an ordinary dataset to a project, so that its id is taken.

        Raises:
            ValueError: The project has such a dataset already, or the id is not valid.
        """
        self._store.add_dataset(project, dataset)

    def disable_subscriber(self, principal: str) -> None:
        """Disable the subscribers of a principal.

        Raises:
            LookupError: The principal is not registered.
        """
        self._cells.disable(principal)

    def issue_access_token(self) -> str:
        """Issue a new access token of the built-in client."""
        return self._login.issue_access_token()

    def expire_access_tokens(self) -> None:
        """Make all access tokens expire now; refresh tokens stay valid."""
        self._login.expire_access_tokens()

    def inject(self, fault: HubFault) -> None:
        """Add a fault, after those in force."""
        self._faults.inject(fault)

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._faults.clear()

    def start(self, http_port: int, port: int) -> None:
        """Start to serve Analytics Hub. The rest is served by `http_app`.

        Args:
            http_port: The port of `http_app`.
            port: The port of Analytics Hub; 0 for a free one.

        Raises:
            OSError: The port is taken.
        """
        self._port = self._grpc.start(port)
        self._http_port = http_port

    def stop(self) -> None:
        """Stop to serve Analytics Hub."""
        self._grpc.stop()

    def http_app(self, rest: ASGIApp) -> ASGIApp:
        """Return the application that serves the REST API, MCP and the login.

        The server must run its lifespan.
        """
        origin = self.authorization_server
        closing = asyncio.Event()
        mcp = create_mcp_app(self._tools, self._login, origin)
        tokens = token_app(self._login)
        app = Starlette(
            routes=[
                *login_routes(self._login, origin),
                Route(TOKEN_PATH, Endpoint(tokens, TOKENS, self._faults, self._log, closing)),
                Route(MCP_PATH, Endpoint(mcp, RPC, self._faults, self._log, closing)),
                Mount("/", mcp),
            ],
            lifespan=mcp.router.lifespan_context,
        )

        async def choose(scope: Scope, receive: Receive, send: Send) -> None:
            is_rest = scope["type"] == "http" and scope["path"].startswith("/v1/")
            await (rest if is_rest else app)(scope, receive, send)

        return choose

    def _running(self, port: int | None) -> int:
        if port is None:
            raise RuntimeError("the hub has no address before the sandbox runs: use it in a `with`")
        return port
