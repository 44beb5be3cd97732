"""What a YAML file and a subclass change of the assets of the component."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg
from dagster.components.testing.test_cases import TestTranslation as Cases
from dagster.components.testing.utils import component_defs

from octogen_dagster import OctogenAssetData
from octogen_dagster.components import OctogenComponent
from tests.promises.yaml_projects import load

SEARCH: dict[str, Any] = {"name": "boots", "search": {"q": "boots"}}
BOOTS = dg.AssetKey("boots")
KeyModifier = Callable[[dg.AssetKey], dg.AssetKey] | None


def check(
    attributes: dict[str, Any], assertion: Callable[[dg.AssetSpec], bool], key: dg.AssetKey
) -> None:
    with load(attributes) as (_, defs):
        spec = next(each for each in defs.resolve_all_asset_specs() if each.key == key)
        assert assertion(spec)


class TestTranslation(Cases):
    """Every case of Dagster's own, for all assets and for one."""

    def test_of_all_assets(
        self,
        attributes: dict[str, Any],
        assertion: Callable[[dg.AssetSpec], bool],
        key_modifier: KeyModifier,
    ) -> None:
        key = key_modifier(BOOTS) if key_modifier else BOOTS
        check({"searches": [SEARCH], "translation": attributes}, assertion, key)

    def test_of_one_asset(
        self,
        attributes: dict[str, Any],
        assertion: Callable[[dg.AssetSpec], bool],
        key_modifier: KeyModifier,
    ) -> None:
        key = key_modifier(BOOTS) if key_modifier else BOOTS
        check({"searches": [SEARCH | {"translation": attributes}]}, assertion, key)

    def test_of_an_asset_that_follows(
        self,
        attributes: dict[str, Any],
        assertion: Callable[[dg.AssetSpec], bool],
        key_modifier: KeyModifier,
    ) -> None:
        if "deps" in attributes:
            assertion = _has_both_deps
        key = dg.AssetKey("boots_brands")
        key = key_modifier(key) if key_modifier else key
        search = SEARCH | {"brands": {"translation": attributes}}
        check({"searches": [search]}, assertion, key)


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


def test_post_processing_applies() -> None:
    with load(
        {"catalogs": True, "searches": [SEARCH]},
        post_processing={"assets": [{"target": "boots", "attributes": {"owners": ["team:shoes"]}}]},
    ) as (_, defs):
        owners = {spec.key: list(spec.owners) for spec in defs.resolve_all_asset_specs()}
    assert owners == {BOOTS: ["team:shoes"], dg.AssetKey("octogen_catalogs"): []}


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
