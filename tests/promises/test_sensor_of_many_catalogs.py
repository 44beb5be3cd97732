"""A tick of the catalog sensor costs no more than its number of catalogs, also if all are due."""

from __future__ import annotations

import dagster as dg
import pytest

from octogen_dagster import (
    NamedCatalogs,
    OctogenResource,
    build_catalog_sensor,
    build_products_asset,
    catalog_partitions,
)

CATALOGS = 2_000


class CountedKey(str):
    """A partition key that counts how often one is compared with another."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        CountedKey.comparisons += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_a_tick_with_every_catalog_due_compares_each_key_a_few_times(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"shop-{number}" for number in range(CATALOGS)]
    stored = [CountedKey(key) for key in keys]
    monkeypatch.setattr(instance, "get_dynamic_partitions", lambda _name: stored)
    monkeypatch.setattr(CountedKey, "comparisons", 0)
    sensor = build_catalog_sensor(
        build_products_asset("products", partitions_def=catalog_partitions)
    )
    octogen = OctogenResource(api_key="unused", catalogs=NamedCatalogs(keys))
    context = dg.build_sensor_context(instance=instance, resources={"octogen": octogen})
    result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    assert len(result.run_requests or ()) == 50
    assert not result.dynamic_partitions_requests
    assert CountedKey.comparisons < 10 * CATALOGS
