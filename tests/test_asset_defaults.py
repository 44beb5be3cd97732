import inspect
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_shared.libraries import DagsterLibraryRegistry

import octogen_dagster
from octogen_dagster import build_product_changes_asset, build_products_asset
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


def references(made: dg.AssetsDefinition) -> list[tuple[str, int | None]]:
    """Return the file and line of each of an asset's code references."""
    value = made.get_asset_spec().metadata.get("dagster/code_references")
    if value is None:
        return []
    assert isinstance(value, dg.CodeReferencesMetadataValue)
    return [
        (each.file_path, each.line_number)
        for each in value.code_references
        if isinstance(each, dg.LocalFileCodeReference)
    ]


def test_the_code_of_an_asset_is_the_line_that_builds_it() -> None:
    frame = inspect.currentframe()
    assert frame
    products = build_products_asset("products")
    line = frame.f_lineno
    changes = build_product_changes_asset(products)
    assert references(products) == [(__file__, line - 1)]
    assert references(changes) == [(__file__, line + 1)]


def run_code(code: str, **names: Any) -> list[tuple[str, int | None]]:
    """Run code with a name as of another module, and return the references of its `made`."""
    space = {"build_products_asset": build_products_asset, **names}
    exec(code, space)
    return references(space["made"])


def test_an_asset_of_a_notebook_or_of_dagster_itself_has_no_code() -> None:
    code = "made = build_products_asset('products')"
    assert run_code(code, __name__="notebook") == []
    assert run_code(code, __name__="dagster.components.load") == []
    # A component of a user that calls this package's is the user's code.
    in_file = compile(code, __file__, "exec")
    space: dict[str, Any] = {"__name__": "user.defs", "build_products_asset": build_products_asset}
    exec(in_file, space)
    assert references(space["made"]) == [(str(Path(__file__).resolve()), 1)]


def test_the_metadata_of_a_user_is_added() -> None:
    made = asset({"metadata": {"own": 1, "both": 1}}, {"metadata": {"both": 2, "given": 2}})
    metadata = made.get_asset_spec().metadata
    assert {name: metadata[name] for name in ("own", "both", "given")} == {
        "own": 1, "both": 2, "given": 2,
    }  # fmt: skip
