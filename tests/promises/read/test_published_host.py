"""The addresses at a host are those of the published package."""

from __future__ import annotations

import inspect

import pytest
from octogen_ai_sdk import _url_lists_cli, bigquery_autosubscribe, client, mcp_auth

from octogen_dagster import OctogenControlPlaneResource, OctogenResource
from octogen_dagster.doctor.checks import diagnose

PRINCIPAL = "serviceAccount:reader@my-project.iam.gserviceaccount.com"
PUBLISHED = (
    client.DEFAULT_BASE_URL,
    bigquery_autosubscribe.DEFAULT_MCP_URL,
    mcp_auth.DEFAULT_MCP_TOKEN_ENDPOINT,
)


def addresses(monkeypatch: pytest.MonkeyPatch, host: str | None) -> str:
    """What the doctor says of a host; the requests go to a proxy that does not exist."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", "octo_live_test")
    monkeypatch.setenv("OCTOGEN_MCP_ACCESS_TOKEN", "access")
    if host:
        monkeypatch.setenv("OCTOGEN_HOST", host)
    control_plane = OctogenControlPlaneResource(principal=PRINCIPAL)
    found = diagnose(octogen=OctogenResource(), control_plane=control_plane)
    return " ".join(each.message for each in found.findings if each.subject.endswith(" host"))


def test_without_a_host_they_are_the_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    told = addresses(monkeypatch, None)
    assert all(f"{url} (" in told for url in PUBLISHED)


def test_at_another_host_only_the_host_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    told = addresses(monkeypatch, "storerouter.ai")
    moved = [url.replace("octogen.ai", "storerouter.ai") for url in PUBLISHED]
    assert all(f"{url} (" in told for url in moved)
    assert moved[0] in (inspect.getdoc(_url_lists_cli) or "")  # as its examples write it
