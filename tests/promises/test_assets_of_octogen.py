"""What every asset has: options, code references, and failures that say what to do."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster_shared.libraries import DagsterLibraryRegistry

import octogen_dagster
from octogen_dagster import (
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    build_catalogs_asset,
    build_linked_datasets_asset,
    build_product_changes_asset,
    build_product_details_asset,
    build_products_asset,
)
from octogen_dagster.errors import MissingAPIKeyError
from tests.api.servers import KEY, RawServer, http
from tests.results import failure

TOP_UP = "https://octogen.example/top-up"


@dg.asset
def listed() -> pl.DataFrame:
    return pl.DataFrame({"uuid": ["a"]})


BUILDERS: dict[str, Callable[..., dg.AssetsDefinition]] = {
    "catalogs": build_catalogs_asset,
    "products": lambda **options: build_products_asset("products", **options),
    "details": lambda **options: build_product_details_asset(listed, **options),
    "changes": lambda **options: build_product_changes_asset(listed, **options),
    "linked": build_linked_datasets_asset,
}


@pytest.mark.parametrize("build", BUILDERS.values(), ids=list(BUILDERS))
def test_the_options_of_any_asset_override_those_of_octogen(build: Any) -> None:
    made = build()
    assert made.get_asset_spec().group_name == "octogen"
    own = build(
        pool="mine",
        group_name="shop",
        description="Mine.",
        key_prefix="shop",
        kinds={"bigquery"},
        owners=["team:data"],
        retry_policy=None,
        metadata={"own": 1},
    )
    spec = own.get_asset_spec()
    assert spec.key == dg.AssetKey(["shop", *made.key.path])
    assert (spec.group_name, spec.description, spec.owners) == ("shop", "Mine.", ["team:data"])
    assert (spec.kinds, own.op.pool, own.op.retry_policy) == ({"bigquery"}, "mine", None)
    assert spec.metadata["own"] == 1
    assert spec.metadata.keys() >= made.get_asset_spec().metadata.keys()


def test_reads_are_in_a_pool_and_are_retried_after_10_then_30_then_70_seconds() -> None:
    products = build_products_asset("products")
    assert products.get_asset_spec().kinds == {"octogen", "polars", "parquet"}
    assert products.op.pool == build_catalogs_asset().op.pool == "octogen"
    policy = products.op.retry_policy
    assert policy
    assert [policy.calculate_delay(attempt) for attempt in (1, 2, 3)] == [10, 30, 70]
    assert policy.max_retries == 3


def test_dagster_is_told_the_version_of_this_package() -> None:
    build_products_asset("products")
    assert DagsterLibraryRegistry.get()["octogen-dagster"] == octogen_dagster.__version__


def references(made: dg.AssetsDefinition) -> list[tuple[str, int | None]]:
    """The file and the line of each of an asset's code references."""
    value = made.get_asset_spec().metadata.get("dagster/code_references")
    given = value.code_references if isinstance(value, dg.CodeReferencesMetadataValue) else ()
    found = [each for each in given if isinstance(each, dg.LocalFileCodeReference)]
    return [(each.file_path, each.line_number) for each in found]


def test_the_code_of_an_asset_is_the_line_that_builds_it() -> None:
    frame = inspect.currentframe()
    assert frame
    products = build_products_asset("products")
    line = frame.f_lineno
    changes = build_product_changes_asset(products)
    assert references(products) == [(__file__, line - 1)]
    assert references(changes) == [(__file__, line + 1)]


@pytest.mark.parametrize("name", ["catalogs", "products", "details"])
def test_a_run_without_a_key_says_which_variables_to_set_and_nothing_of_the_code(
    name: str, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    asset = BUILDERS[name]()
    resources = {
        "octogen": OctogenResource(),
        "io_manager": ParquetSnapshotIOManager(base_dir=str(tmp_path)),
    }
    dg.materialize([listed], instance=instance, resources=resources)
    result = dg.materialize(
        [asset, listed],
        selection=[asset],
        instance=instance,
        resources=resources,
        raise_on_error=False,
    )
    [failed] = [event for event in result.all_events if event.is_step_failure]
    data = failed.step_failure_data
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    assert data.user_failure_data
    assert data.user_failure_data.description == str(MissingAPIKeyError())
    assert data.error
    assert "OCTOGEN_PLATFORM_API_KEY" in data.error.message
    assert data.error.cause is None
    assert "credentials.py" not in str(data.error)


@pytest.mark.parametrize(
    ("status", "is_retried"),
    [(status, False) for status in (401, 402, 403, 404, 422)]
    + [(status, True) for status in (400, 409, 500, 503)],
)
def test_an_error_is_retried_unless_a_retry_cannot_fix_it(
    status: int, is_retried: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    credit = {"code": "insufficient_credit", "top_up_url": TOP_UP}
    with RawServer(lambda _: http(status, {"detail": credit if status == 402 else "x"})) as server:
        octogen = OctogenResource(
            api_key=dg.EnvVar("THE_KEY"), base_url=server.base_url, attempts=1
        )
        asset = build_products_asset(
            "products", ProductSearch(q="x"), retry_policy=dg.RetryPolicy(max_retries=1)
        )
        result = dg.materialize(
            [asset],
            resources={
                "octogen": octogen,
                "io_manager": ParquetSnapshotIOManager(base_dir=str(tmp_path)),
            },
            raise_on_error=False,
        )
    assert str(status) in failure(result)
    assert bool([each for each in result.all_events if each.is_step_up_for_retry]) == is_retried
    (failed,) = [each for each in result.all_events if each.is_step_failure]
    metadata = getattr(failed.step_failure_data.user_failure_data, "metadata", {})
    bought_at = json.dumps({name: str(value.value) for name, value in metadata.items()})
    assert (TOP_UP in bought_at) == (status == 402)
