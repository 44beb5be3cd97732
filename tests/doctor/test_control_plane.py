from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from octogen_dagster.bigquery.resources import OctogenControlPlaneResource
from octogen_dagster.doctor.control_plane import check_control_plane
from octogen_dagster.doctor.runner import run_checks
from tests.api.servers import RawServer, Received, http
from tests.control_plane.servers import PRINCIPAL, PROJECT, TOKEN, grant, mcp, reply, text_result

LISTINGS = "list_bigquery_listing_resources"
SUBSCRIBERS = "list_bigquery_subscribers"
SHARED = [{"catalogKey": "acme", "listingResource": "projects/a/locations/US/…"}]


def octogen(*subscribers: dict[str, Any], error: str | None = None) -> RawServer:
    """Octogen's MCP, which refuses to list subscribers if there is an error."""

    def call(request: Received) -> Iterable[bytes]:
        tool = request.json["params"]["name"]
        if tool == LISTINGS:
            return reply(request, text_result(structuredContent={"result": SHARED}))
        assert tool == SUBSCRIBERS, "nothing is registered or refreshed"
        value = {"error": error} if error else {"subscribers": subscribers, "cells": []}
        return reply(request, text_result(structuredContent={"result": value}))

    return RawServer(mcp(call))


def subscriber(**fields: str) -> dict[str, str]:
    return {
        "subscriberId": "1",
        "subscriberProjectId": PROJECT,
        "subscriberPrincipal": PRINCIPAL,
        "desiredState": "enabled",
    } | fields


def diagnosed(server: RawServer, **settings: Any) -> list[str]:
    resource = OctogenControlPlaneResource(
        principal=PRINCIPAL, url=f"{server.origin}/mcp/", **settings
    )
    found = run_checks({"MCP": partial(check_control_plane, resource, PROJECT, 30)}, 60)
    assert TOKEN not in str(found)
    host, *others = [str(each) for each in found]
    assert host.startswith(f"ok       MCP host: {server.origin}/mcp/ (url of the resource); ")
    return others


@pytest.fixture
def given_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTOGEN_MCP_ACCESS_TOKEN", TOKEN)


@pytest.mark.usefixtures("given_token")
def test_a_login_that_works() -> None:
    with octogen(subscriber()) as server:
        assert diagnosed(server) == [
            f"ok       MCP login: {server.origin}/mcp/ accepts the login; listings shared "
            "with the organisation: 1.",
            "ok       MCP role: the login may manage subscribers.",
            f"ok       MCP subscriber: {PRINCIPAL} in project {PROJECT} is registered.",
        ]


@pytest.mark.usefixtures("given_token")
@pytest.mark.parametrize(
    ("subscribers", "found"),
    [
        ([], "warning  MCP subscriber: {} is not registered. A linked dataset with control_plane"),
        (
            [subscriber(subscriberProjectId="another-project")],
            "warning  MCP subscriber: {} is not registered.",
        ),
        (
            [subscriber(desiredState="disabled")],
            "failed   MCP subscriber: {} is registered and disabled. Ask Octogen to enable it.",
        ),
    ],
)
def test_subscribers(subscribers: list[dict[str, str]], found: str) -> None:
    with octogen(*subscribers) as server:
        assert diagnosed(server)[-1].startswith(found.format(f"{PRINCIPAL} in project {PROJECT}"))


@pytest.mark.usefixtures("given_token")
def test_a_login_without_the_role() -> None:
    with octogen(error="not_authorized") as server:
        login, role = diagnosed(server)
    assert login.startswith("ok       MCP login")
    assert role.startswith("failed   MCP role: Octogen's MCP tool list_bigquery_subscribers")
    assert "not_authorized" in role


def test_a_login_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with octogen() as server:
        (found,) = diagnosed(server)
    assert found.startswith("failed   MCP: There is no login to Octogen's MCP")
    assert "run `octogen-dagster login`" in found


@pytest.mark.usefixtures("given_token")
def test_a_login_that_is_refused() -> None:
    with RawServer(lambda _: http(401)) as server:
        (found,) = diagnosed(server)
    assert found.startswith("failed   MCP: The access token is refused")


def test_a_refresh_token_file_that_others_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "refresh"
    file.write_text("refresh-0123456789")
    file.chmod(0o640)
    monkeypatch.setenv("OCTOGEN_MCP_CLIENT_ID", "client")
    with RawServer(lambda _: grant()) as tokens, octogen(subscriber()) as server:
        monkeypatch.setenv("OCTOGEN_MCP_TOKEN_ENDPOINT", f"{tokens.origin}/token")
        found = diagnosed(server, refresh_token_file=str(file))
    assert found[0] == (
        f"warning  MCP login: others can read the refresh token file {file} (mode 0640). A login "
        "that works leaves it to its owner alone; if others may have read it, run `octogen-dagster "
        "login` again."
    )
    assert [line[:7] for line in found[1:]] == ["ok     "] * 3


def test_a_refresh_token_outside_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTOGEN_MCP_CLIENT_ID", "client")
    monkeypatch.setenv("OCTOGEN_MCP_REFRESH_TOKEN", "refresh-0123456789")
    with RawServer(lambda _: grant()) as tokens, octogen(subscriber()) as server:
        monkeypatch.setenv("OCTOGEN_MCP_TOKEN_ENDPOINT", f"{tokens.origin}/token")
        found = diagnosed(server)
    assert found[0].startswith("warning  MCP login: OCTOGEN_MCP_REFRESH_TOKEN holds the refresh")
    assert "refresh-0123456789" not in str(found)


def test_a_refresh_token_file_that_cannot_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTOGEN_MCP_CLIENT_ID", "client")
    with octogen() as server:
        (found,) = diagnosed(server, refresh_token_file=f"/{'long' * 100}")
    assert found.startswith("failed   MCP: The refresh token file /long")
    assert "File name too long" in found
