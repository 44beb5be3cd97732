"""Tests of what the settings of a search must not contradict."""

from __future__ import annotations

from typing import Any

import pytest

from octogen_dagster.components import OctogenComponent
from octogen_dagster.errors import OctogenComponentError


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (
            {"partitions": "day"},
            "Search 'boots': partitions: day needs start_date, the first day, as 2026-11-25.",
        ),
        (
            {"start_date": "2026-11-25"},
            "Search 'boots': start_date needs partitions: day or catalog_day. Change one of them.",
        ),
        (
            {"partitions": "day", "start_date": "yesterday"},
            "start_date is 'yesterday', which is no date: write one as 2026-11-25",
        ),
        (
            {"partitions": "catalog", "search": {"catalogs": ["acme"]}},
            "Search 'boots': partitions: catalog makes each catalog a partition, so the search "
            "must not name catalogs. Remove `catalogs`, or name them in catalog_source: keys.",
        ),
        (
            {"partitions": "day", "start_date": "2026-11-25", "search": {"max_products": 5}},
            "Search 'boots': partitions: day with max_products would store a part of the products "
            "as a whole partition. Remove max_products or the partitions.",
        ),
        (
            {"sensor": True},
            "Search 'boots': sensor needs partitions: catalog or catalog_day. Use a schedule "
            "instead.",
        ),
        (
            {"min_rows_ratio": 2},
            "min_rows_ratio must be a share from 0 to 1 (0.05 is 5 %), not 2.0",
        ),
        (
            {"details": {"failure_threshold": 5}},
            "failure_threshold must be a share from 0 to 1 (0.05 is 5 %), not 5.0",
        ),
        (
            {"search": {"facets": [{"name": "gender", "values": ["femal"]}]}},
            "gender has no value 'femal' (did you mean female or male?): use male, female or "
            "unisex",
        ),
    ],
)
def test_settings_of_a_search_that_do_not_fit_are_told(
    search: dict[str, Any], message: str
) -> None:
    assert message in mistake({"searches": [{"name": "boots", **search}]})


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"searches": [{"name": "boots"}, {"name": "boots"}]},
            "'boots' is also the name of searches[0]: give each search a name of its own.",
        ),
        (
            {
                "catalogs_as": "assets",
                "searches": [{"name": "all", "partitions": "catalog", "sensor": True}],
            },
            "searches[0].sensor: needs catalogs_as: partitions. Catalogs that are assets are "
            "materialized by a schedule or an automation condition",
        ),
        (
            {"catalog_source": {"hosts": ["acme.com"], "keys": ["acme"]}},
            "catalog_source has both hosts and keys: write one of them.",
        ),
        ({"catalog_source": {}}, "catalog_source needs hosts or keys, or is the word granted"),
        (
            {"catalog_source": "grantd"},
            "catalog_source is 'grantd': write granted, or hosts: [...] or keys: [...] below",
        ),
    ],
)
def test_settings_of_a_component_that_do_not_fit_are_told(
    attributes: dict[str, Any], message: str
) -> None:
    assert message in mistake(attributes)


def mistake(attributes: dict[str, Any]) -> str:
    with pytest.raises(OctogenComponentError) as caught:
        OctogenComponent.from_attributes_dict(attributes=attributes)
    return str(caught.value)
