"""What a YAML file and a subclass change of the assets of the component."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest
from dagster.components.testing.test_cases import TestTranslation as Cases
from dagster.components.testing.utils import component_defs

from octogen_dagster import OctogenAssetData
from octogen_dagster.components import OctogenComponent
from tests.promises.yaml_projects import load

SEARCH: dict[str, Any] = {"name": "boots", "search": {"q": "boots"}}
BOOTS = dg.AssetKey("boots")
BRANDS = dg.AssetKey("boots_brands")


class TestTranslation(Cases):
    """Every case of Dagster's own, for all assets, for one, and for one that follows."""

    @pytest.mark.parametrize("where", ["all", "one", "follower"])
    def test_of(
        self,
        where: str,
        attributes: dict[str, Any],
        assertion: Callable[[dg.AssetSpec], bool],
        key_modifier: Callable[[dg.AssetKey], dg.AssetKey] | None,
    ) -> None:
        key = BRANDS if where == "follower" else BOOTS
        if where == "follower" and "deps" in attributes:
            assertion = _has_both_deps
        settings: dict[str, dict[str, Any]] = {
            "all": {"searches": [SEARCH], "translation": attributes},
            "one": {"searches": [SEARCH | {"translation": attributes}]},
            "follower": {"searches": [SEARCH | {"brands": {"translation": attributes}}]},
        }
        with load(settings[where]) as (_, defs):
            specs = {spec.key: spec for spec in defs.resolve_all_asset_specs()}
        assert assertion(specs[key_modifier(key) if key_modifier else key])


def _has_both_deps(spec: dg.AssetSpec) -> bool:
    """True if a dependency was added: Dagster cannot take the input of an asset away."""
    return {dep.asset_key for dep in spec.deps} == {BOOTS, dg.AssetKey("nonexistent")}


def test_what_follows_an_asset_finds_its_new_key() -> None:
    search = SEARCH | {"changes": True, "brands": True, "translation": {"key": "raw/shoes"}}
    attributes = {"catalogs": True, "searches": [search], "translation": {"key_prefix": "octogen"}}
    with load(attributes) as (_, defs):
        specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
    assert set(specs) == {
        "octogen/octogen_catalogs",
        "raw/shoes",
        "octogen/shoes_changes",
        "octogen/shoes_brands",
    }
    for name in ("octogen/shoes_changes", "octogen/shoes_brands"):
        assert [dep.asset_key for dep in specs[name].deps] == [dg.AssetKey(["raw", "shoes"])]


def test_a_template_knows_the_spec_and_the_asset() -> None:
    translation = {
        "tags": {"kind": "{{ data.kind }}", "was": "{{ spec.key.path[-1] }}"},
        "freshness_policy": "{{ dg.FreshnessPolicy.time_window("
        "fail_window=datetime.timedelta(days=2)) }}",
    }
    with load({"searches": [SEARCH], "translation": translation}) as (_, defs):
        spec = next(each for each in defs.resolve_all_asset_specs() if each.key == BOOTS)
    assert spec.tags["kind"] == "products"
    assert spec.tags["was"] == "boots"
    assert spec.freshness_policy is not None


class Tagging(OctogenComponent):
    def get_asset_spec(self, data: OctogenAssetData) -> dg.AssetSpec:
        keywords = data.search.q if data.search else None
        spec = super().get_asset_spec(data)
        return spec.merge_attributes(tags={"q": keywords or "none", "kind": data.kind})


def test_a_subclass_changes_specs_and_yaml_comes_after_it() -> None:
    component = Tagging.resolve_from_dict(
        {
            "catalogs": True,
            "searches": [SEARCH],
            "translation": {"tags": {"kind": "{{ spec.tags['kind'] }}-yaml"}},
        }
    )
    defs = component_defs(component=component)
    tags = {spec.key: spec.tags for spec in defs.resolve_all_asset_specs()}
    assert tags[BOOTS]["q"] == "boots"
    assert tags[BOOTS]["kind"] == "products-yaml"
    assert tags[dg.AssetKey("octogen_catalogs")]["q"] == "none"
