"""A week of snapshots of keywords that the service understands, differently from one day on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

import octogen_dagster as od
from tests.projects import Project
from tests.published_service import PublishedService
from tests.results import metadata, octogen_at

RED = {"color_family": ["Red"]}
RED_OR_PINK = {"color_family": ["Red", "Pink"], "occasion": ["party"]}
SEARCH = od.ProductSearch(q="red dress", understand=True, catalogs=["acme", "zen"])
MONDAY = datetime.now(UTC) - timedelta(days=8)


@pytest.fixture
def service() -> Iterator[PublishedService]:
    """A service with two catalogs of dresses."""
    dresses = {key: [f"{key}-{number}" for number in range(30)] for key in ("acme", "zen")}
    with PublishedService(dresses, generated=RED).running() as running:
        yield running


@pytest.mark.slow
def test_a_week_in_which_the_understanding_changes_once(
    project: Project, service: PublishedService, capfd: pytest.CaptureFixture[str]
) -> None:
    now = MONDAY
    products = od.build_products_asset(
        "products", SEARCH, od.snapshot_days(f"{MONDAY:%Y-%m-%d}"), _clock=lambda: now
    )
    for day in range(7):
        now = MONDAY + timedelta(days=day)
        if day == 3:
            service.generated = RED_OR_PINK
            service.catalogs["acme"] = service.catalogs["acme"][:10]
        key = f"{now:%Y-%m-%d}"
        result = project.run([products], octogen_at(service), partition_key=key)
        snapshot = metadata(result, "products")
        stored = pl.read_parquet_metadata(project.folder / "products" / f"{key}.parquet")
        log = capfd.readouterr().err

        facets = [
            {"name": name, "values": values, "source": "generated"}
            for name, values in (RED if day < 3 else RED_OR_PINK).items()
        ]
        query = {"text": "red dress", "understood": True, "facets": facets}
        assert snapshot["octogen/effective_query"] == query
        assert json.loads(stored["octogen.effective_query"]) == query
        lines = [
            f"'red dress' as {facet['name']}: {', '.join(sorted(facet['values']))}."
            for facet in facets
        ]
        assert [log.count(line) for line in lines] == [1] * len(lines)
        assert log.count("'red dress' as ") == len(lines)

        changed = snapshot.get("octogen/effective_query_changed")
        assert changed == (None if day == 0 else day == 3)
        assert snapshot.get("octogen/disappeared") == (None if day == 0 else 20 * (day == 3))
        differs = "* facets: color_family: Red before, color_family: Pink, Red; occasion: party now"
        shown = snapshot.get("octogen/effective_query_differences")
        assert shown == (differs if day == 3 else None)
    assert {json.dumps(body["understand"]) for body in service.searches} == {"true"}
