from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from octogen_dagster.cli.main import main
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
    assert lines[-1].startswith("ok       Snapshots: a file was written, renamed, read back")


def test_what_does_not_work_ends_with_1_in_json_too(connect: pytest.MonkeyPatch) -> None:
    with today({"detail": "Invalid API key"}, 401) as server:
        serve(server, connect)
        result = run("--json")
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert said["ok"] is False
    assert said["findings"][-1]["status"] == "failed"


def test_bad_input_ends_with_2(connect: pytest.MonkeyPatch) -> None:
    result = run("--shop", " / ")
    assert result.exit_code == 2
    assert "hosts has" in result.stderr
