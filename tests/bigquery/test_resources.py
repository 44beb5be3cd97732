"""The resources use their own settings, and the environment for what they leave out."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from octogen_dagster.bigquery.resources import AnalyticsHubResource, OctogenControlPlaneResource
from octogen_dagster.errors import (
    OctogenBigQueryError,
    OctogenBigQueryInputError,
    OctogenMCPAuthenticationError,
)
from octogen_dagster.sandbox.hub import Hub
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import RawServer, http
from tests.servers.bigquery import environment

PROJECT = "my-project"
PRINCIPAL = "serviceAccount:reader@my-project.iam.gserviceaccount.com"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Sandbox(catalogs=0, hub=True) as sandbox:
        sandbox.hub.share("northpeak")
        yield sandbox.hub


def test_the_endpoint_of_the_resource_overrides_the_environment(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANALYTICS_HUB_EMULATOR_HOST", "127.0.0.1:1")
    with AnalyticsHubResource(project=PROJECT, endpoint=hub.endpoint).hub() as analytics_hub:
        assert len(analytics_hub.list_listings(hub.exchange).listings) == 1


@pytest.mark.parametrize("encode", [base64.b64encode, base64.encodebytes])
def test_the_credentials_are_those_of_the_key_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encode: Callable[[bytes], bytes]
) -> None:
    monkeypatch.delenv("ANALYTICS_HUB_EMULATOR_HOST", raising=False)
    with RawServer(lambda _: http(400, {"error": "invalid_grant"})) as server:
        environment("", server.origin, tmp_path)
        key = encode((tmp_path / "key.json").read_bytes()).decode()
        resource = AnalyticsHubResource(project=PROJECT, gcp_credentials=key)
        with (
            resource.hub() as analytics_hub,
            pytest.raises(OctogenBigQueryError, match="Google credentials cannot be used"),
        ):
            analytics_hub.list_subscriptions(PROJECT, "us")
    assert [request.target for request in server.received] == ["/token"]


@pytest.fixture
def _elsewhere(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    """Set the environment of another subscriber and another server."""
    for name, value in {
        "URL": "http://127.0.0.1:1/mcp/",
        "TOKEN_ENDPOINT": hub.token_endpoint,
        "TOKEN_COMMAND": "false",
        "REFRESH_TOKEN": "somebody-elses",
        "REFRESH_TOKEN_FILE": "/no/such/file",
        "ACCESS_TOKEN": "somebody-elses",
        "CLIENT_ID": "somebody-elses",
        "CLIENT_ID_FILE": "/no/such/file",
    }.items():
        monkeypatch.setenv(f"OCTOGEN_MCP_{name}", value)


@pytest.mark.usefixtures("_elsewhere")
def test_the_settings_of_the_resource_override_the_environment(hub: Hub, tmp_path: Path) -> None:
    refresh_token, client_id = tmp_path / "refresh", tmp_path / "client"
    refresh_token.write_text(hub.refresh_token)
    client_id.write_text(hub.client_id)
    resource = OctogenControlPlaneResource(
        principal=PRINCIPAL,
        url=hub.mcp_url,
        refresh_token_file=str(refresh_token),
        client_id_file=str(client_id),
    )
    with resource.control_plane() as octogen:
        assert [listing.catalog_key for listing in octogen.listings()] == ["northpeak"]


@pytest.mark.usefixtures("_elsewhere")
def test_the_environment_has_what_the_resource_leaves_out(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = OctogenControlPlaneResource(principal=PRINCIPAL)
    with (
        resource.control_plane() as octogen,
        pytest.raises(OctogenMCPAuthenticationError, match="token command failed"),
    ):
        octogen.listings()
    monkeypatch.setenv("OCTOGEN_MCP_TOKEN_COMMAND", f"echo {hub.access_token}")
    monkeypatch.setenv("OCTOGEN_MCP_URL", hub.mcp_url)
    with resource.control_plane() as octogen:
        assert len(octogen.listings()) == 1


def test_credentials_that_are_invalid_are_refused_without_showing_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for text in ("secret?", base64.b64encode(b"[]").decode(), base64.b64encode(b"{}").decode()):
        resource = AnalyticsHubResource(project=PROJECT, gcp_credentials=text)
        with pytest.raises(
            OctogenBigQueryInputError, match="not a Google key file in base64"
        ) as it:
            resource.hub()
        assert text not in str(it.value)


def test_no_secret_is_shown() -> None:
    resource = AnalyticsHubResource(project=PROJECT, gcp_credentials="hidden")
    assert "hidden" not in repr(resource)
