"""The doctor checks the setup, suggests fixes, does not hang and changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import dagster as dg
import duckdb
import polars as pl
import pytest
from click.testing import CliRunner, Result
from google.api_core.exceptions import PermissionDenied
from google.auth.transport.requests import AuthorizedSession
from google.cloud import bigquery_analyticshub_v1 as ah

from octogen_dagster import (
    AnalyticsHubResource,
    GrantedCatalogs,
    NamedCatalogs,
    OctogenControlPlaneResource,
    OctogenResource,
    ParquetSnapshotIOManager,
    ShopCatalogs,
)
from octogen_dagster.cli.main import main
from octogen_dagster.doctor.checks import diagnose
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.tables import DuckDBTables, PostgresTables
from tests.api.servers import (
    KEY,
    POLL_SECONDS,
    RawServer,
    Received,
    catalog_of_shop,
    http,
    shop,
    unlisted,
)
from tests.promises.control_plane import SECRET
from tests.results import octogen_at
from tests.servers import bigquery as rest_api
from tests.servers.analytics_hub import answering, refusing
from tests.servers.octogen_mcp import CLIENT, PRINCIPAL, PROJECT, OctogenServer, reply, structured

ME = {
    "principal": "api_key",
    "key": {"id": "1", "prefix": None},
    "organization": {"id": "1", "name": "Acme", "slug": "acme", "type": "catalog_partner"},
    "quotas": {},
    "rateLimit": {"limit": 600, "remaining": 599, "resetAt": "2026-11-26T10:00:00Z"},
}
EXCHANGE = "projects/octogen/locations/US/dataExchanges/catalogs"
SUBSCRIBERS = "list_bigquery_subscribers"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("OCTOGEN_", "GOOGLE_")) or name.endswith("_EMULATOR_HOST"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", KEY)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")


def lines(**resources: Any) -> dict[str, list[str]]:
    """The findings of a diagnosis without their subjects, by these."""
    found: dict[str, list[str]] = {}
    for each in diagnose(**resources).findings:
        line = f"{each.status}: {each.message} {each.advice}".strip()
        assert KEY not in line
        assert SECRET not in line
        found.setdefault(each.subject, []).append(line)
    return found


class TestOctogen:
    """The key, the catalogs, the rate limit and the prices."""

    @staticmethod
    def current(me: Any = ME, status: int = 200) -> RawServer:
        covered = {"acme.example": shop("acme.example", catalog_of_shop("acme", 250))}
        return unlisted(lambda _: http(status, me), covered, path="/me")

    def test_a_service_that_works(self) -> None:
        source = ShopCatalogs(["acme.example"])
        with self.current() as server:
            found = lines(
                octogen=OctogenResource(
                    base_url=server.base_url, catalog_source=source, budget_usd=50
                )
            )
        assert f"polars {pl.__version__}" in found.pop("Versions")[0]
        skipped = {
            subject
            for subject, (line, *_) in found.items()
            if line.startswith("skipped: not checked")
        }
        assert skipped == {"Snapshots", "MCP login", "Analytics Hub", "Queries"}
        assert {subject: found[subject] for subject in found.keys() - skipped} == {
            "Octogen host": [f"ok: {server.base_url} (base_url of the resource)."],
            "Octogen key": [
                f"ok: {server.base_url} accepts the API key (OCTOGEN_PLATFORM_API_KEY) for the "
                "organization 'Acme' and implements the current API contract."
            ],
            "Octogen catalogs": ["ok: ShopCatalogs lists 1 catalog with 250 products."],
            "Octogen rate limit": ["ok: 600 requests per minute."],
            "Octogen spending": [
                "ok: configured prices: $0.014 per search page, $0.002 per lookup; budget per run: "
                "$50.00 (3,571 pages)."
            ],
            "Octogen balance": [
                "skipped: Octogen's API does not report the remaining credit. When the credit "
                "is used up, searches and lookups return 402."
            ],
        }

    def test_a_service_of_the_older_contract(self) -> None:
        def older(request: Received) -> Iterable[bytes]:
            if request.target == "/v1/me":
                return http(404, {"detail": "Not Found"})
            listed = [{"catalog": key, "productCount": 500} for key in ("acme", "zen")]
            return http(200, listed, X_RateLimit_Limit="300", X_RateLimit_Remaining="299")

        with RawServer(older) as server:
            found = lines(octogen=octogen_at(server))
        (key,) = found["Octogen key"]
        assert "api_key" in key
        assert "(seed)" in key
        assert found["Octogen catalogs"][0] == (
            "ok: GrantedCatalogs lists 2 catalogs with 1,000 products."
        )
        assert found["Octogen rate limit"] == ["ok: 300 requests per minute."]
        assert found["Octogen spending"][0].endswith("set budget_usd.")

    @pytest.mark.parametrize(
        ("organization", "said"),
        [
            (None, "ok: "),
            ({"id": "1", "name": "Acme", "slug": "acme", "type": "new"}, "'new'"),
        ],
    )
    def test_an_organization_that_is_unknown_or_new_is_no_failure(
        self, organization: Any, said: str
    ) -> None:
        with self.current(ME | {"organization": organization}) as server:
            (found,) = lines(octogen=octogen_at(server))["Octogen key"]
        assert found.startswith(("ok", "warning"))
        assert said in found

    @pytest.mark.parametrize(
        ("source", "found"),
        [
            (
                ShopCatalogs(["acme.example", "gone.example"]),
                "warning: ShopCatalogs lists 1 catalog with 250 products. Shop 'gone.example'",
            ),
            (ShopCatalogs(["gone.example"]), "failed: Shop 'gone.example'"),
            (GrantedCatalogs(), "warning: The list of catalogs is not available at"),
            (NamedCatalogs(["acme"]), "ok: 1 catalog from NamedCatalogs"),
        ],
        ids=str,
    )
    def test_sources_of_catalogs(self, source: Any, found: str) -> None:
        with self.current() as server:
            octogen = OctogenResource(base_url=server.base_url, catalog_source=source)
            assert lines(octogen=octogen)["Octogen catalogs"][0].startswith(found)

    @pytest.mark.parametrize(
        ("status", "detail", "said"),
        [
            (401, "Invalid API key", "401"),
            (402, {"code": "insufficient_credit", "top_up_url": "https://octogen.x/pay"}, "/pay"),
        ],
    )
    def test_a_key_that_is_refused(self, status: int, detail: Any, said: str) -> None:
        with self.current({"detail": detail}, status) as server:
            found = lines(octogen=OctogenResource(base_url=server.base_url))
        assert found["Octogen"][0].startswith("failed: The account of the API key")
        assert said in found["Octogen"][0]
        assert "Octogen key" not in found

    def test_a_key_that_is_deprecated_or_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OCTOGEN_PLATFORM_API_KEY")
        with self.current() as server:
            octogen = OctogenResource(
                base_url=server.base_url, catalog_source=NamedCatalogs(["acme"])
            )
            assert lines(octogen=octogen)["Octogen"][0].startswith("failed: No Octogen API key")
            assert not server.received
            monkeypatch.setenv("OCTO_API_KEY", KEY)
            (found,) = lines(octogen=octogen)["Octogen key"]
        assert found.startswith("warning:")
        assert found.endswith("OCTO_API_KEY. Set OCTOGEN_PLATFORM_API_KEY instead.")

    def test_a_variable_of_a_resource_that_is_not_set(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        octogen = OctogenResource(api_key=dg.EnvVar("MY_KEY"))
        (found,) = lines(octogen=octogen)["Octogen"]
        assert found.startswith("failed: OctogenResource reads api_key from")
        assert "MY_KEY" in found

    def test_an_asset_check_may_call_it(self) -> None:
        @dg.asset
        def boots() -> None: ...

        @dg.asset_check(asset=boots)
        def octogen_works(octogen: OctogenResource) -> dg.AssetCheckResult:
            diagnosis = diagnose(octogen=octogen)
            return dg.AssetCheckResult(passed=diagnosis.ok, description=str(diagnosis))

        with self.current({"detail": "Invalid API key"}, 401) as server:
            result = octogen_works(OctogenResource(base_url=server.base_url))
        assert isinstance(result, dg.AssetCheckResult)
        assert not result.passed
        assert "failed   Octogen: The account of the API key" in str(result.description)

    def test_a_service_that_hangs_hides_nothing_else(self, tmp_path: Path) -> None:
        released = threading.Event()

        def hang(request: Received) -> Iterator[bytes]:
            released.wait(60)
            yield b""

        with RawServer(hang) as server:
            found = lines(
                octogen=OctogenResource(base_url=server.base_url),
                io_manager=ParquetSnapshotIOManager(base_dir=str(tmp_path)),
                timeout=9,
            )
            released.set()
        assert found["Octogen host"][0].startswith("ok:")
        assert found["Octogen"][0].startswith("failed: ")
        assert found["Snapshots"][0].startswith("ok: ")


class TestSnapshots:
    """The place of the snapshots."""

    def test_a_folder_is_left_as_it_was(self, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        for folder in (tmp_path / "there", tmp_path / "new" / "deep"):
            io_manager = ParquetSnapshotIOManager(base_dir=str(folder))
            (found,) = lines(io_manager=io_manager)["Snapshots"]
            assert found.startswith("ok: ")
            assert str(folder) in found
        assert list(tmp_path.rglob("*")) == [tmp_path / "there"]

    def test_a_place_that_cannot_be_written_to(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").touch()
        io_manager = ParquetSnapshotIOManager(base_dir=str(tmp_path / "file"))
        (found,) = lines(io_manager=io_manager)["Snapshots"]
        assert found.startswith("failed: Snapshots cannot be written to")

        def fail(*_: object) -> None:
            raise PermissionError("not permitted")

        monkeypatch.setattr(os, "replace", fail)
        (found,) = lines(io_manager=ParquetSnapshotIOManager(base_dir=str(tmp_path)))["Snapshots"]
        assert "could not be published" in found
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


class TestTables:
    """The destinations of tables."""

    def test_a_table_is_made_and_dropped(self, tmp_path: Path) -> None:
        there, new = tmp_path / "there.duckdb", tmp_path / "new.duckdb"
        duckdb.connect(str(there)).close()
        tables = [DuckDBTables(database=str(each)) for each in (there, new)]
        found = lines(tables=tables)
        for path in (there, new):
            (line,) = found[f"Tables (octogen_duckdb_{path.stem})"]
            assert line.startswith(f"ok: DuckDB ({path}): ")
            assert line.endswith("schema octogen.")
        assert [path.name for path in tmp_path.iterdir()] == ["there.duckdb"]
        with duckdb.connect(str(there)) as reader:
            schemas = reader.execute(
                "SELECT 1 FROM information_schema.schemata WHERE schema_name = 'octogen'"
            ).fetchall()
        assert not schemas

    def test_a_destination_that_is_not_there_is_told_without_its_password(self) -> None:
        nowhere = PostgresTables(uri=f"postgresql://me:{SECRET}@127.0.0.1:1/shop")
        unset = PostgresTables(uri=dg.EnvVar("NO_SUCH_WAREHOUSE"))
        found = lines(tables=[nowhere, unset])
        assert found["Tables (octogen_postgres_shop)"][0].startswith(
            "failed: PostgreSQL (shop at 127.0.0.1) "
        )
        assert (
            "NO_SUCH_WAREHOUSE, which is not set"
            in found["Tables (octogen_postgres_NO_SUCH_WAREHOUSE)"][0]
        )


class TestControlPlane:
    """The login to Octogen's MCP, its role and the subscriber."""

    @pytest.fixture(autouse=True)
    def login(
        self, _environment: None, server: OctogenServer, monkeypatch: pytest.MonkeyPatch
    ) -> OctogenServer:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("OCTOGEN_MCP_ACCESS_TOKEN", server.access_token)
        server.tools["list_bigquery_listing_resources"] = [{"listingResource": "projects/a"}]
        server.tools[SUBSCRIBERS] = {"subscribers": [self.subscriber()]}
        return server

    @staticmethod
    def subscriber(**fields: str) -> dict[str, str]:
        return {
            "subscriberId": "1",
            "subscriberProjectId": PROJECT,
            "subscriberPrincipal": PRINCIPAL,
            "desiredState": "enabled",
        } | fields

    @staticmethod
    def mcp_lines(**settings: Any) -> list[str]:
        resource = OctogenControlPlaneResource(principal=PRINCIPAL, **settings)
        found = lines(control_plane=resource)
        return [line for subject in found if subject.startswith("MCP") for line in found[subject]]

    def test_a_login_that_works(self, login: OctogenServer) -> None:
        assert self.mcp_lines() == [
            f"ok: {login.mcp_url} (OCTOGEN_MCP_URL); token endpoint: {login.token_endpoint} "
            "(OCTOGEN_MCP_TOKEN_ENDPOINT).",
            f"ok: {login.mcp_url} accepts the login; shared listings: 1.",
            "ok: the login can manage subscribers.",
            f"ok: {PRINCIPAL} is registered.",
        ]
        assert "register_bigquery_subscriber" not in login.calls

    def test_subscribers(self, login: OctogenServer) -> None:
        login.tools[SUBSCRIBERS] = {"subscribers": [self.subscriber(desiredState="disabled")]}
        assert self.mcp_lines()[-1].startswith(f"failed: {PRINCIPAL} is registered, but disabled.")
        login.tools[SUBSCRIBERS] = {"subscribers": []}
        found = self.mcp_lines()[-1]
        assert found.startswith(f"warning: {PRINCIPAL} is not registered.")
        assert "bq autosubscribe --apply" in found

    def test_a_login_without_the_role(self, login: OctogenServer) -> None:
        denied = structured({"error": "not_authorized"})
        login.fail(SUBSCRIBERS, lambda request: reply(request, denied))
        *_, accepted, role = self.mcp_lines()
        assert accepted.startswith("ok: ")
        assert role.startswith(f"failed: Octogen's MCP tool {SUBSCRIBERS}")
        assert "not_authorized" in role

    def test_a_login_that_is_missing_or_refused(
        self, login: OctogenServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        login.expire()
        assert self.mcp_lines()[-1].startswith("failed: The access token ")
        monkeypatch.delenv("OCTOGEN_MCP_ACCESS_TOKEN")
        found = self.mcp_lines()[-1]
        assert found.startswith("failed: ")
        assert "Run `octogen-dagster login`" in found

    def test_a_refresh_token_that_others_can_read_or_that_is_lost(
        self, login: OctogenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "refresh"
        file.write_text(login.refresh_token)
        file.chmod(0o640)
        monkeypatch.setenv("OCTOGEN_MCP_CLIENT_ID", CLIENT)
        found = self.mcp_lines(refresh_token_file=str(file))
        assert found[1].startswith(
            f"warning: other users can read the refresh token file {file} (mode 0640)."
        )
        assert [line.partition(":")[0] for line in found[2:]] == ["ok"] * 3
        assert "session" in found[2]
        file.chmod(0o620)
        found = self.mcp_lines(refresh_token_file=str(file))
        assert found[1].startswith(
            f"warning: other users can replace the refresh token file {file} (mode 0620)."
        )
        monkeypatch.setenv("OCTOGEN_MCP_REFRESH_TOKEN", login.refresh_token)
        lost = self.mcp_lines()[1]
        assert lost.startswith("warning: ")
        assert "OCTOGEN_MCP_REFRESH_TOKEN" in lost


def listing(name: str) -> str:
    return f"{EXCHANGE}/listings/{name}"


def subscribed(*names: str) -> Any:
    """A `ListSubscriptions` with an active subscription to each of these listings."""
    subscriptions = [
        ah.Subscription(
            name=f"projects/{PROJECT}/locations/US/subscriptions/{name}",
            listing=listing(name),
            state=ah.Subscription.State.STATE_ACTIVE,
            destination_dataset=ah.DestinationDataset(
                dataset_reference=ah.DestinationDatasetReference(
                    project_id=PROJECT, dataset_id=f"octogen_{name}"
                )
            ),
        )
        for name in names
    ]
    return lambda _: ah.ListSubscriptionsResponse(subscriptions=subscriptions)


def granted_for(*resources: str) -> Any:
    """A `TestIamPermissions` that grants the right to subscribe to these listings."""
    from google.iam.v1 import iam_policy_pb2  # type: ignore[import-untyped]

    return lambda request: iam_policy_pb2.TestIamPermissionsResponse(
        permissions=request.permissions if request.resource in resources else []
    )


class TestAnalyticsHub:
    """Subscriptions, and the listings that Octogen shares."""

    @pytest.fixture(autouse=True)
    def octogen(
        self, _environment: None, server: OctogenServer, monkeypatch: pytest.MonkeyPatch
    ) -> OctogenServer:
        """Octogen's MCP, which shares listings."""
        monkeypatch.setenv("OCTOGEN_MCP_ACCESS_TOKEN", server.access_token)
        server.tools[SUBSCRIBERS] = {}
        return server

    @staticmethod
    def hub_lines(
        octogen: OctogenServer, *names: str, location: str = "US", **methods: Callable[[Any], Any]
    ) -> list[str]:
        """The lines about listings with these names; `methods` are those of the hub."""
        octogen.tools["list_bigquery_listing_resources"] = [
            {"listingResource": name, "location": location} for name in names
        ]
        none = {"ListSubscriptions": subscribed(), "TestIamPermissions": granted_for()}
        with answering(**none | methods) as endpoint:
            found = diagnose(
                analytics_hub=AnalyticsHubResource(project=PROJECT, endpoint=endpoint),
                control_plane=OctogenControlPlaneResource(principal=PRINCIPAL, url=octogen.mcp_url),
            ).findings
        subjects = ("Subscriptions", "Listings", "Analytics Hub")
        return [str(each) for each in found if each.subject in subjects]

    def test_listings_by_what_can_be_done_with_them(self, octogen: OctogenServer) -> None:
        names = [listing(name) for name in ("linked", "granted", "pending")]
        found = self.hub_lines(
            octogen,
            *names,
            "projects/a",
            ListSubscriptions=subscribed("linked"),
            TestIamPermissions=granted_for(names[1]),
        )
        assert found.pop(0).startswith("failed   Listings: 'projects/a' is not the name of a")
        assert [line.partition(" Within minutes")[0] for line in found] == [
            f"ok       Subscriptions: project {PROJECT} has 1 subscription in location US.",
            f"ok       Listings: subscribed to 1: {PROJECT}.octogen_linked.products_current_v1.",
            f"ok       Listings: ready to subscribe to 1: {names[1]}.",
            "warning  Listings: the permission analyticshub.listings.subscribe is missing for 1: "
            f"{names[2]}.",
        ]
        assert "roles/analyticshub.subscriber" in found[-1]

    def test_a_location_that_is_said_otherwise(self, octogen: OctogenServer) -> None:
        found = self.hub_lines(octogen, listing("linked"), location="EU")
        assert found[0].startswith("failed   Listings: ")
        assert f" 1: {listing('linked')} (EU). " in found[0]

    def test_a_listing_whose_linked_dataset_must_not_be_exported(
        self, octogen: OctogenServer
    ) -> None:
        config = ah.Listing.RestrictedExportConfig(enabled=True, restrict_query_result=True)

        def get(request: Any) -> Any:
            if request.name == listing("hidden"):
                refusing("PERMISSION_DENIED")(request)
            return ah.Listing(name=request.name, restricted_export_config=config)

        found = self.hub_lines(
            octogen,
            *(listing("hidden"), listing("linked")),
            ListSubscriptions=subscribed("linked", "hidden"),
            GetListing=get,
        )
        assert found[-1].startswith(
            "warning  Listings: exports are restricted (restricted_export_config) for 1: "
            f"{listing('linked')} (enabled, restrict_query_result). "
        )

    def test_what_cannot_be_read_hides_nothing_else(self, octogen: OctogenServer) -> None:
        def test(request: Any) -> Any:
            if request.resource == listing("gone"):
                refusing("NOT_FOUND", "No such listing.")(request)
            return granted_for(listing("granted"))(request)

        found = self.hub_lines(
            octogen,
            *(listing("gone"), listing("granted")),
            ListSubscriptions=refusing("PERMISSION_DENIED"),
            TestIamPermissions=test,
        )
        assert found[0].startswith(
            f"failed   Subscriptions: The subscriptions of projects/{PROJECT}"
        )
        assert "NOT_FOUND: No such listing" in found[1]
        assert found[2].startswith("ok       Listings: ready to subscribe to 1")

    def test_without_listings_the_rest_is_read_all_the_same(self, octogen: OctogenServer) -> None:
        subscriptions, listings = self.hub_lines(octogen)
        assert subscriptions == (
            f"ok       Subscriptions: project {PROJECT} has 0 subscriptions in location US."
        )
        assert listings.startswith("skipped  Listings: ")

    def test_many_listings_are_named_shortly_and_not_all_looked_at(
        self, octogen: OctogenServer
    ) -> None:
        names = [listing(f"shop_{number:03}") for number in range(103)]
        found = self.hub_lines(octogen, *names, TestIamPermissions=granted_for(*names))
        assert found[1].endswith(f"to 100: {', '.join(names[:3])} and 97 more.")
        assert found[2] == "skipped  Listings: not checked: 3 more listings."
        refused = refusing("PERMISSION_DENIED")
        found = self.hub_lines(octogen, *names[:8], TestIamPermissions=refused)
        assert [line[:8] for line in found[1:]] == ["failed  "] * 3 + ["skipped "]
        assert found[-1] == "skipped  Listings: not checked: 5 more listings."


PERMISSIONS = [
    "bigquery.datasets.create",
    "bigquery.datasets.get",
    "analyticshub.subscriptions.list",
    "bigquery.jobs.create",
]


class TestGoogle:
    """The credentials, their permissions and queries."""

    @pytest.fixture(autouse=True)
    def manager(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[RawServer]:
        """Cloud Resource Manager, which grants `permissions` or refuses with `status`."""
        google = "https://cloudresourcemanager.googleapis.com"
        request: Any = AuthorizedSession.request

        def answer(received: Received) -> Iterable[bytes]:
            assert received.target == f"/v3/projects/{PROJECT}:testIamPermissions"
            return http(self.status, {"permissions": self.permissions})

        with RawServer(answer) as server:
            monkeypatch.setattr(
                AuthorizedSession,
                "request",
                lambda session, method, url, *arguments, **options: request(
                    session, method, url.replace(google, server.origin), *arguments, **options
                ),
            )
            yield server

    status, permissions = 200, PERMISSIONS

    @pytest.fixture
    def hub(self, monkeypatch: pytest.MonkeyPatch) -> AnalyticsHubResource:
        """Analytics Hub at its own address, which refuses at once: none is waited for."""

        def refuse(*_: Any, **__: Any) -> NoReturn:
            raise PermissionDenied("Refused.")  # type: ignore[no-untyped-call]

        monkeypatch.setattr(ah.AnalyticsHubServiceClient, "list_subscriptions", refuse)
        return AnalyticsHubResource(project=PROJECT)

    @pytest.mark.parametrize(
        ("status", "missing", "said"),
        [
            (200, [], [f"ok: {PROJECT} grants {', '.join(PERMISSIONS)}."]),
            (
                200,
                PERMISSIONS[3:],
                [
                    f"ok: {PROJECT} grants {', '.join(PERMISSIONS[:3])}.",
                    "failed: The permission bigquery.jobs.create is missing.",
                ],
            ),
            (
                403,
                [],
                [
                    f"skipped: Cloud Resource Manager does not report the permissions on {PROJECT} "
                    "(HTTP 403). Enable"
                ],
            ),
        ],
        ids=["all", "one is missing", "the API is not enabled"],
    )
    def test_permissions_on_the_project(
        self,
        status: int,
        missing: list[str],
        said: list[str],
        hub: AnalyticsHubResource,
        tmp_path: Path,
    ) -> None:
        self.status = status
        self.permissions = [each for each in PERMISSIONS if each not in missing]
        with rest_api.serving(lambda *_: (200, {}), tmp_path):
            found = lines(analytics_hub=hub)
        for line, begin in zip(found["Google project"], said, strict=True):
            assert line.startswith(begin)

    def test_the_credentials_are_those_of_the_principal_or_not(
        self, hub: AnalyticsHubResource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with RawServer(lambda _: http(200, {"access_token": "x", "expires_in": 3600})) as tokens:
            for name, value in rest_api.environment("", tokens.origin, tmp_path).items():
                monkeypatch.setenv(name, value)
            other = OctogenControlPlaneResource(principal=PRINCIPAL)
            first, second = (
                lines(analytics_hub=hub, control_plane=control_plane)
                for control_plane in (None, other)
            )
        (kind,) = first["Google credentials"]
        assert kind.startswith("ok: a service account key file, ")
        (warned,) = second["Google credentials"]
        assert warned.startswith("warning: a service account key file, ")
        assert f"Octogen shares data with {PRINCIPAL}. " in warned

    def test_credentials_that_are_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with RawServer(lambda _: http(400, {"error": "invalid_grant"})) as tokens:
            for name, value in rest_api.environment("", tokens.origin, tmp_path).items():
                monkeypatch.setenv(name, value)
            found = lines(analytics_hub=AnalyticsHubResource(project=PROJECT))
        for subject in ("Google credentials", "Subscriptions"):
            assert found[subject][0].startswith("failed: ")
            assert "invalid_grant" in found[subject][0]

    def test_credentials_that_are_missing(self, tmp_path: Path) -> None:
        (found,) = lines(analytics_hub=AnalyticsHubResource(project=PROJECT))["Google credentials"]
        assert found.startswith(f"failed: Project {PROJECT}: no Google credentials")

    def test_a_query_is_only_tried(self, tmp_path: Path) -> None:
        asked: list[dict[str, Any]] = []

        def answer(method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            assert (method, path.partition("?")[0].endswith("/jobs")) == ("POST", True)
            asked.append(body["configuration"])
            return 200, {
                "jobReference": {"projectId": PROJECT, "jobId": "1", "location": "US"},
                "status": {"state": "DONE"},
                "configuration": body["configuration"],
                "statistics": {
                    "totalBytesProcessed": "2048",
                    "query": {"totalBytesProcessed": "2048"},
                },
            }

        with rest_api.serving(answer, tmp_path):
            found = lines(bigquery=AnalyticsHubResource(project=PROJECT))
        assert found["Queries"] == [
            f"ok: the query `SELECT 1` can run in project {PROJECT} and would read 2,048 bytes."
        ]
        assert asked[0]["dryRun"] is True

    def test_a_query_that_is_refused(self, tmp_path: Path) -> None:
        refusal = rest_api.refused(403, "accessDenied", "User has no bigquery.jobs.create.")
        with rest_api.serving(lambda *_: refusal, tmp_path):
            (found,) = lines(bigquery=AnalyticsHubResource(project=PROJECT))["Queries"]
        assert found.startswith(f"failed: A query in project {PROJECT}: BigQuery rejected")
        assert "roles/bigquery.jobUser" in found


class TestCommand:
    """`octogen-dagster doctor`, outside of a project."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    @staticmethod
    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(main, ["doctor", *arguments])
        assert KEY not in result.output
        return result

    def test_what_works_and_what_does_not(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with TestOctogen.current() as server:
            monkeypatch.setenv("OCTOGEN_BASE_URL", server.base_url)
            fine = self.run("--host", "acme.example", "--base-dir", str(tmp_path))
        assert fine.exit_code == 0
        assert "ok       Octogen catalogs: ShopCatalogs lists 1 catalog with 250 products." in (
            fine.stdout.splitlines()
        )
        assert [line for line in fine.stdout.splitlines() if "not checked. Pass" in line] == [
            "skipped  MCP login: not checked. Pass --principal.",
            "skipped  Analytics Hub: not checked. Pass --project.",
            "skipped  Queries: not checked. Pass --project.",
        ]
        with TestOctogen.current({"detail": "Invalid API key"}, 401) as server:
            monkeypatch.setenv("OCTOGEN_BASE_URL", server.base_url)
            broken = self.run("--json")
        assert broken.exit_code == 1
        said = json.loads(broken.stdout)
        assert said["ok"] is False
        failed = [each["subject"] for each in said["findings"] if each["status"] == "failed"]
        assert failed == ["Octogen"]

    @pytest.mark.slow
    def test_each_finding_is_printed_as_it_comes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        released = threading.Event()

        def hang(request: Received) -> Iterator[bytes]:
            released.wait(POLL_SECONDS)
            yield b""

        program = "from octogen_dagster.cli.main import main; main()"
        command = [sys.executable, "-c", program, "doctor", "--base-dir", str(tmp_path / "there")]
        with RawServer(hang) as server:
            monkeypatch.setenv("OCTOGEN_BASE_URL", server.base_url)
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout
                assert next(line for line in process.stdout if line.startswith("ok       Snapsh"))
                released.set()
                rest, _ = process.communicate(timeout=POLL_SECONDS)
        assert ("failed   Octogen: " in rest, process.returncode) == (True, 1)

    def test_the_sandbox_with_its_hub_works(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with Sandbox(catalogs=2, products=5, hub=True) as sandbox:
            resource = sandbox.hub.share("northpeak")
            monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
            for name, value in sandbox.environment.items():
                monkeypatch.setenv(name, value)
            arguments = ["--project=my-project", "--principal=user:me@my.example"]
            result = self.run(*arguments)
            changes = {"SubscribeListing", "register_bigquery_subscriber"}
            assert not changes & {call.method for call in sandbox.hub.calls}
            assert sandbox.charged_usd == 0
            token = sandbox.environment["OCTOGEN_MCP_ACCESS_TOKEN"]
        assert result.exit_code == 0
        for line in (
            "ok       MCP role: the login can manage subscribers.",
            f"ok       Listings: ready to subscribe to 1: {resource}.",
            "ok       Queries: the query `SELECT 1` can run in project my-project and would read 0 "
            "bytes.",
        ):
            assert line in result.stdout.splitlines()
        assert token not in result.output
