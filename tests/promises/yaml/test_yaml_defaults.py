"""The schema of the YAML shows the defaults of the builders that a setting is handed to."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import octogen_dagster as od
from octogen_dagster.components.linked_component import (
    LinkedProductsSettings,
    LinkedSnapshotSettings,
)
from octogen_dagster.components.settings import (
    CheckSettings,
    DetailsSettings,
    SearchSettings,
    SensorSettings,
)
from octogen_dagster.components.url_list_settings import UrlCoverageSettings, UrlListSettings
from octogen_dagster.components.yaml_model import YamlModel

COVERAGE = UrlCoverageSettings(project="my-project")


@pytest.mark.parametrize(
    ("settings", "builder"),
    [
        (CheckSettings(), od.build_snapshot_checks),
        (DetailsSettings(), od.build_product_details_asset),
        (SearchSettings(name="boots"), od.build_products_asset),
        (SensorSettings(), od.build_catalog_sensor),
        (SensorSettings(), od.build_listing_sensor),
        (LinkedProductsSettings(), od.build_linked_products_asset),
        (LinkedSnapshotSettings(), od.build_linked_snapshot_asset),
        (UrlListSettings(name="pages", urls="shop/pages"), od.build_url_list_asset),
        (COVERAGE, od.build_url_list_export_asset),
        (COVERAGE, od.build_linked_snapshot_asset),
        (COVERAGE, od.build_url_matches_asset),
    ],
    ids=lambda each: getattr(each, "__name__", type(each).__name__),
)
def test_a_setting_has_the_default_of_the_builder(
    settings: YamlModel, builder: Callable[..., Any]
) -> None:
    parameters = inspect.signature(builder).parameters
    shared = {*type(settings).model_fields} & parameters.keys() - {"name", "search", "urls"}
    assert shared
    for name in shared:
        default, written = parameters[name].default, getattr(settings, name)
        if isinstance(default, tuple):
            written = tuple(written)
        assert (written or None) == (getattr(default, "value", default) or None), name
