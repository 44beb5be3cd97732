from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from octogen_dagster.api.catalog_sources import NamedCatalogs
from octogen_dagster.bigquery.resources import AnalyticsHubResource, OctogenControlPlaneResource
from octogen_dagster.doctor.diagnose import diagnose
from octogen_dagster.errors import OctogenBigQueryInputError
from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
from octogen_dagster.snapshots.resource import OctogenResource
from tests.api.servers import KEY, RawServer, http
from tests.bigquery.rest_api import environment
from tests.doctor.listings import PROJECT, granted_for, listing, subscribed
from tests.doctor.test_octogen_api import today
from tests.servers.analytics_hub import answering


def test_the_findings_come_in_the_order_of_the_subjects(tmp_path: Path) -> None:
    with today() as server:
        octogen = OctogenResource(
            api_key=KEY, base_url=server.base_url, catalogs=NamedCatalogs(["acme"])
        )
        diagnosis = diagnose(
            octogen=octogen, io_manager=ParquetSnapshotIOManager(base_dir=str(tmp_path))
        )
    assert diagnosis.ok
    subjects = [each.subject for each in diagnosis.findings if each.subject != "Commands"]
    assert [subject.split()[0] for subject in subjects] == [
        *["Versions"],
        *["Octogen"] * 6,
        *["Snapshots", "MCP", "Analytics", "Queries"],
    ]


def test_what_is_not_given_is_skipped() -> None:
    found = [each for each in diagnose().findings if each.status == "skipped"]
    assert [each.message.split("`")[1] for each in found] == [
        *("octogen", "io_manager", "control_plane", "analytics_hub", "bigquery")
    ]


def test_a_login_that_fails_hides_no_listing_that_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    name = listing("acme")
    with answering(ListSubscriptions=subscribed(), TestIamPermissions=granted_for([name])) as hub:
        diagnosis = diagnose(
            analytics_hub=AnalyticsHubResource(project=PROJECT, endpoint=hub),
            control_plane=OctogenControlPlaneResource(principal="user:a@b.c"),
            listings=[name],
        )
    found = {each.subject: each for each in diagnosis.findings}
    assert found["MCP login"].status == "failed"
    assert found["Listings"].message == f"free to subscribe to 1: {name}."


def test_google_credentials_that_are_refused_are_told_before_google_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(lambda _: http(400, {"error": "invalid_grant"})) as tokens:
        for name, value in environment("", tokens.origin, tmp_path).items():
            monkeypatch.setenv(name, value)
        diagnosis = diagnose(analytics_hub=AnalyticsHubResource(project=PROJECT))
    found = {each.subject: each for each in diagnosis.findings}
    for subject in ("Google credentials", "Subscriptions"):
        assert found[subject].status == "failed"
        assert "invalid_grant" in found[subject].message


def test_the_limit_of_the_pool_is_read_from_the_instance_of_dagster_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "telemetry": {"enabled": False},
        "concurrency": {"pools": {"default_limit": 150}},
    }
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with today() as server:
        octogen = OctogenResource(
            api_key=KEY, base_url=server.base_url, catalogs=NamedCatalogs(["acme"])
        )
        found = {each.subject: each for each in diagnose(octogen=octogen).findings}
    assert found["Octogen rate limit"].status == "warning"
    assert "has the limit 150" in found["Octogen rate limit"].message


def test_an_instance_that_cannot_be_opened_hides_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster.yaml").write_text("storage: {nonsense: {}}")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with today() as server:
        octogen = OctogenResource(
            api_key=KEY, base_url=server.base_url, catalogs=NamedCatalogs(["acme"])
        )
        found = {each.subject: each for each in diagnose(octogen=octogen).findings}
    assert found["Dagster instance"].status == "failed"
    assert "dagster instance info" in found["Dagster instance"].advice
    assert "is not known without a Dagster instance" in found["Octogen rate limit"].message


@pytest.mark.parametrize("names", [{"listings": ["projects/a"]}, {"exchange": "catalogs"}], ids=str)
def test_a_name_that_is_malformed_is_refused_before_anything_is_sent(names: Any) -> None:
    with pytest.raises(OctogenBigQueryInputError, match="is not the name of a"):
        diagnose(**names)


def test_it_can_be_called_in_an_asset_check() -> None:
    @dg.asset
    def boots() -> None: ...

    @dg.asset_check(asset=boots)
    def octogen_works(octogen: OctogenResource) -> dg.AssetCheckResult:
        diagnosis = diagnose(octogen=octogen)
        return dg.AssetCheckResult(passed=diagnosis.ok, description=str(diagnosis))

    with today({"detail": "Invalid API key"}, 401) as server:
        octogen = OctogenResource(api_key=KEY, base_url=server.base_url)
        result = octogen_works(octogen)
    assert isinstance(result, dg.AssetCheckResult)
    assert not result.passed
    assert "failed   Octogen: The account of the API key" in str(result.description)
