"""Catalogs of the current generation in one run, and their histories, by the published models.

Every field that may be absent is: no price, no currency, no stock.
"""

from __future__ import annotations

from collections import defaultdict

import dagster as dg
import polars as pl
import pytest

import octogen_dagster as od
from tests.projects import Project
from tests.published_service import PublishedService
from tests.results import octogen_at, of_range

CATALOGS = {"acme": 230, "odd": 1, "zen": 100}
PAGES = 3 + 1 + 1
RANGE = of_range("acme", "zen")
CHANGES = ("appeared", "changed", "disappeared", "reappeared")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_a_run_of_many_catalogs_costs_their_pages_and_their_histories_cost_nothing(
    project: Project,
) -> None:
    policy = dg.BackfillPolicy.single_run()
    products = od.build_products_asset(
        "products", partitions_def=od.catalog_partitions, backfill_policy=policy
    )
    history = od.build_product_history_asset(products, backfill_policy=policy)
    sold = {key: [f"{key}-{number}" for number in range(size)] for key, size in CATALOGS.items()}
    with PublishedService(sold).running() as service:
        project.instance.add_dynamic_partitions("octogen_catalogs", list(CATALOGS))
        octogen = octogen_at(service, catalog_source=od.NamedCatalogs(list(CATALOGS)))

        def materialize() -> None:
            for asset in (products, history):
                assert project.run(
                    [products, history], octogen, selection=[asset], tags=RANGE
                ).success

        materialize()
        assert len(service.searches) == PAGES
        sold["acme"] = ["acme-new", *sold["acme"][1:]]
        materialize()
        assert len(service.searches) == 2 * PAGES
        events = project.instance.fetch_materializations(history.key, limit=3).records
    found = {}
    for record in events:
        event = record.asset_materialization
        assert event
        found[event.partition] = [event.metadata[f"octogen/{name}"].value for name in CHANGES]
    assert found == {"acme": [1, 0, 1, 0], "odd": [0, 0, 0, 0], "zen": [0, 0, 0, 0]}
    versions = defaultdict(set)
    for record in project.instance.fetch_materializations(products.key, limit=6).records:
        assert record.asset_materialization
        tags = record.asset_materialization.tags or {}
        versions[record.partition_key].add(tags["dagster/data_version"])
    assert {key: len(each) for key, each in versions.items()} == {"acme": 2, "odd": 1, "zen": 1}
    rows = od.scan_history(str(project.folder), asset="products_history")
    current = rows.filter("is_current").select("catalog_key", "uuid").collect()
    assert sorted(current.rows()) == sorted((key, each) for key in sold for each in sold[key])
    (gone,) = rows.filter(pl.col("valid_to").is_not_null()).select("uuid").collect()["uuid"]
    assert gone == "acme-0"
