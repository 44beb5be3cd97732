from typing import Any

import dagster as dg
from dagster_shared.libraries import DagsterLibraryRegistry

import octogen_dagster
from octogen_dagster.asset_defaults import octogen_asset


def asset(own: dict[str, Any], given: dict[str, Any]) -> dg.AssetsDefinition:
    """Return an asset that does nothing."""

    @octogen_asset({"name": "made", **own}, given)
    def compute() -> None:
        pass

    return compute


def test_an_asset_has_the_group_pool_and_kinds_of_octogen() -> None:
    made = asset({}, {})
    spec = made.get_asset_spec()
    assert spec.key == dg.AssetKey("made")
    assert spec.group_name == "octogen"
    assert spec.kinds == {"octogen", "polars", "parquet"}
    assert made.op.pool == "octogen"


def test_a_factory_overrides_the_defaults() -> None:
    made = asset({"pool": None, "kinds": {"bigquery"}}, {})
    assert made.op.pool is None
    assert made.get_asset_spec().kinds == {"bigquery"}
    assert made.get_asset_spec().group_name == "octogen"


def test_a_user_overrides_the_defaults_and_the_factory() -> None:
    made = asset(
        {"pool": None, "description": "The factory's."},
        {"pool": "mine", "description": "Mine.", "group_name": "shop", "key_prefix": "shop"},
    )
    spec = made.get_asset_spec()
    assert spec.key == dg.AssetKey(["shop", "made"])
    assert (spec.group_name, spec.description) == ("shop", "Mine.")
    assert made.op.pool == "mine"


def test_a_none_of_the_user_takes_a_default_of_the_factory_away() -> None:
    policy = dg.RetryPolicy(max_retries=3)
    assert asset({"retry_policy": policy}, {}).op.retry_policy == policy
    assert asset({"retry_policy": policy}, {"retry_policy": None}).op.retry_policy is None


def test_dagster_is_told_the_version_of_this_package() -> None:
    assert DagsterLibraryRegistry.get()["octogen-dagster"] == octogen_dagster.__version__
