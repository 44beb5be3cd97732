"""The resources of linked datasets use their settings, and the environment for the rest."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.auth.exceptions import RefreshError

import octogen_dagster as od
from octogen_dagster.errors import (
    OctogenBigQueryError,
    OctogenBigQueryInputError,
    OctogenMCPAuthenticationError,
)
from tests.api.servers import RawServer, http
from tests.messages import Golden
from tests.projects import Project
from tests.promises.sharing.linked import BIGQUERY, linked
from tests.servers.analytics_hub import error_info
from tests.servers.bigquery import BigQueryServer, answering, environment
from tests.servers.google import EXCHANGE, LISTING, PROJECT, Google
from tests.servers.octogen import Octogen
from tests.servers.octogen_mcp import CLIENT, PRINCIPAL


def test_the_endpoint_of_the_resource_overrides_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANALYTICS_HUB_EMULATOR_HOST", "127.0.0.1:1")
    with (
        Google().running() as endpoint,
        od.AnalyticsHubResource(project=PROJECT, endpoint=endpoint).hub() as hub,
    ):
        assert len(hub.list_listings(EXCHANGE).listings) == 1


@pytest.mark.parametrize("encode", [base64.b64encode, base64.encodebytes])
def test_the_credentials_are_those_of_the_key_file(
    golden: Golden,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    encode: Callable[[bytes], bytes],
) -> None:
    monkeypatch.delenv("ANALYTICS_HUB_EMULATOR_HOST", raising=False)
    with RawServer(lambda _: http(400, {"error": "invalid_grant"})) as server:
        environment("", server.origin, tmp_path)
        key = encode((tmp_path / "key.json").read_bytes()).decode()
        resource = od.AnalyticsHubResource(project=PROJECT, gcp_credentials=key)
        with (
            resource.hub() as hub,
            golden.raises(OctogenBigQueryError),
        ):
            hub.list_subscriptions(PROJECT, "us")
        with resource.get_client() as client, pytest.raises(RefreshError, match="invalid_grant"):
            client.query("SELECT 1")
    assert [request.target for request in server.received] == ["/token", "/token"]


def test_credentials_that_are_invalid_are_refused_and_none_are_shown(golden: Golden) -> None:
    for text in ("secret?", base64.b64encode(b"[]").decode(), base64.b64encode(b"{}").decode()):
        resource = od.AnalyticsHubResource(project=PROJECT, gcp_credentials=text)
        assert text not in repr(resource)
        with golden.raises(OctogenBigQueryInputError) as caught:
            resource.hub()
        with pytest.raises(OctogenBigQueryInputError), resource.get_client():
            pass
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
        settled = od.OctogenControlPlaneResource(
            principal=PRINCIPAL,
            url=url,
            refresh_token_file=str(refresh_token),
            client_id_file=str(client_id),
        )
        with settled.control_plane() as opened:
            assert [each.catalog_key for each in opened.listings()] == ["acme"]
        bare = od.OctogenControlPlaneResource(principal=PRINCIPAL)
        with (
            bare.control_plane() as opened,
            pytest.raises(OctogenMCPAuthenticationError, match="token command failed"),
        ):
            opened.listings()
        monkeypatch.setenv("OCTOGEN_MCP_TOKEN_COMMAND", f"echo {octogen.access_token}")
        monkeypatch.setenv("OCTOGEN_MCP_URL", url)
        with bare.control_plane() as opened:
            assert len(opened.listings()) == 1


# An error of Google is shown with the code that says most.


SCOPE = error_info("ACCESS_TOKEN_SCOPE_INSUFFICIENT", method="SubscribeListing")
LACKING = {
    "code": 403,
    "message": "Caller lacks access to the project.",
    "status": "PERMISSION_DENIED",
    "details": [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "USER_PROJECT_DENIED",
            "domain": "googleapis.com",
        }
    ],
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """BigQuery; the entry "answer" says how it answers."""
    set_answer: dict[str, Any] = {"answer": BigQueryServer()}

    def answer(method: str, path: str, body: dict[str, Any]) -> Any:
        return set_answer["answer"](method, path, body)

    with answering(answer) as address:
        for name, value in environment(address, address, tmp_path).items():
            monkeypatch.setenv(name, value)
        yield set_answer


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "FAILED_PRECONDITION"])
@pytest.mark.parametrize("method", ["ListSubscriptions", "SubscribeListing"])
def test_analytics_hub_s_reason_is_shown_beside_the_status(
    method: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    google = Google()
    google.refuse(method, code, 1, SCOPE, text="Request had insufficient scopes.")
    with google.running() as endpoint:
        monkeypatch.setenv("ANALYTICS_HUB_EMULATOR_HOST", endpoint)
        with pytest.raises(OctogenBigQueryError) as caught:
            od.subscribe_to_listing(listing_resource=LISTING, destination_project=PROJECT)
    shown = f"({code} ACCESS_TOKEN_SCOPE_INSUFFICIENT: Request had insufficient scopes)"
    assert shown in str(caught.value)


def test_a_refusal_of_bigquery_without_a_list_of_errors_shows_the_reason_in_its_details(
    golden: Golden, server: dict[str, Any], project: Project
) -> None:
    server["answer"] = lambda *_: (403, {"error": LACKING})
    message = project.failure([linked, od.build_linked_products_asset(linked)], resources=BIGQUERY)
    golden("errors", message)


@pytest.mark.long
def test_the_last_of_many_failed_jobs_says_why(
    golden: Golden, server: dict[str, Any], project: Project
) -> None:
    bigquery: BigQueryServer = server["answer"]
    wrong = {"reason": "invalidQuery", "message": "Unrecognized name: x", "location": "query"}
    bigquery.failures, bigquery.lost_answers = [wrong] * 20, 20
    snapshot = od.build_linked_snapshot_asset(linked, where="x")
    message = project.failure([linked, snapshot], resources=BIGQUERY)
    golden("errors", message)
    assert "invalidQuery: Unrecognized name: x" in message
