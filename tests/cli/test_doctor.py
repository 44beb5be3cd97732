from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from octogen_dagster.cli.main import main
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import KEY, RawServer
from tests.doctor.test_octogen_api import today


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["doctor", *arguments])
    assert KEY not in result.output
    return result


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", KEY)
    return monkeypatch


def serve(server: RawServer, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("OCTOGEN_BASE_URL", server.base_url)


def test_what_works_is_told_line_by_line(connect: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with today() as server:
        serve(server, connect)
        result = run("--shop", "acme.example", "--base-dir", str(tmp_path))
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert "ok       Octogen catalogs: ShopCatalogs has 1 catalogs with 250 products." in lines
    assert any(line.startswith("ok       Snapshots: a file was written") for line in lines)


def test_what_does_not_work_ends_with_1_in_json_too(connect: pytest.MonkeyPatch) -> None:
    with today({"detail": "Invalid API key"}, 401) as server:
        serve(server, connect)
        result = run("--json")
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert said["ok"] is False
    assert [each["subject"] for each in said["findings"] if each["status"] == "failed"] == [
        "Octogen"
    ]


def test_bad_input_ends_with_2(connect: pytest.MonkeyPatch) -> None:
    result = run("--shop", " / ")
    assert result.exit_code == 2
    assert "hosts has" in result.stderr


def test_the_sandbox_with_its_hub_works_as_the_readme_says(monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox(catalogs=2, products=5, hub=True) as sandbox:
        resource = sandbox.hub.share("northpeak")
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        arguments = ["--project=my-project", "--principal=user:me@my.example"]
        result = run(*arguments, f"--exchange={sandbox.hub.exchange}", f"--listing={resource}")
        changes = {"SubscribeListing", "register_bigquery_subscriber"}
        assert not changes & {call.method for call in sandbox.hub.calls}
        assert sandbox.charged_usd == 0
    assert result.exit_code == 0
    for line in (
        "ok       MCP role: the login may manage subscribers.",
        f"ok       Exchange: {sandbox.hub.exchange} has 1 catalogs.",
        f"ok       Listings: 1 can be subscribed to: {resource}.",
        "skipped  Queries: there is no resource `bigquery` to check.",
    ):
        assert line in result.stdout.splitlines()
    assert not [
        secret for secret in (sandbox.hub.refresh_token, sandbox.api_key) if secret in result.output
    ]
