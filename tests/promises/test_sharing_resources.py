"""The resources of linked datasets use their settings, and the environment for the rest."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from octogen_dagster import AnalyticsHubResource, OctogenControlPlaneResource
from octogen_dagster.errors import (
    OctogenBigQueryError,
    OctogenBigQueryInputError,
    OctogenMCPAuthenticationError,
)
from tests.api.servers import RawServer, http
from tests.servers.bigquery import environment
from tests.servers.google import EXCHANGE, PROJECT, Google
from tests.servers.octogen import Octogen
from tests.servers.octogen_mcp import CLIENT, PRINCIPAL


def test_the_endpoint_of_the_resource_overrides_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANALYTICS_HUB_EMULATOR_HOST", "127.0.0.1:1")
    with (
        Google().running() as endpoint,
        AnalyticsHubResource(project=PROJECT, endpoint=endpoint).hub() as hub,
    ):
        assert len(hub.list_listings(EXCHANGE).listings) == 1


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
            resource.hub() as hub,
            pytest.raises(OctogenBigQueryError, match="Google credentials cannot be used"),
        ):
            hub.list_subscriptions(PROJECT, "us")
    assert [request.target for request in server.received] == ["/token"]


def test_credentials_that_are_invalid_are_refused_and_none_are_shown() -> None:
    for text in ("secret?", base64.b64encode(b"[]").decode(), base64.b64encode(b"{}").decode()):
        resource = AnalyticsHubResource(project=PROJECT, gcp_credentials=text)
        assert text not in repr(resource)
        with pytest.raises(OctogenBigQueryInputError, match="not a Google key file") as caught:
            resource.hub()
        assert text not in str(caught.value)


def test_the_login_of_the_resource_overrides_the_environment_which_has_what_it_leaves_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    octogen = Octogen()
    octogen.share("acme")
    with octogen.running() as url:
        for name, value in {
            "URL": "http://127.0.0.1:1/mcp/",
            "TOKEN_ENDPOINT": octogen.token_endpoint,
            "TOKEN_COMMAND": "false",
            "REFRESH_TOKEN": "somebody-elses",
            "REFRESH_TOKEN_FILE": "/no/such/file",
            "ACCESS_TOKEN": "somebody-elses",
            "CLIENT_ID": "somebody-elses",
            "CLIENT_ID_FILE": "/no/such/file",
        }.items():
            monkeypatch.setenv(f"OCTOGEN_MCP_{name}", value)
        refresh_token, client_id = tmp_path / "refresh", tmp_path / "client"
        refresh_token.write_text(octogen.refresh_token)
        client_id.write_text(CLIENT)
        settled = OctogenControlPlaneResource(
            principal=PRINCIPAL,
            url=url,
            refresh_token_file=str(refresh_token),
            client_id_file=str(client_id),
        )
        with settled.control_plane() as opened:
            assert [each.catalog_key for each in opened.listings()] == ["acme"]
        bare = OctogenControlPlaneResource(principal=PRINCIPAL)
        with (
            bare.control_plane() as opened,
            pytest.raises(OctogenMCPAuthenticationError, match="token command failed"),
        ):
            opened.listings()
        monkeypatch.setenv("OCTOGEN_MCP_TOKEN_COMMAND", f"echo {octogen.access_token}")
        monkeypatch.setenv("OCTOGEN_MCP_URL", url)
        with bare.control_plane() as opened:
            assert len(opened.listings()) == 1
