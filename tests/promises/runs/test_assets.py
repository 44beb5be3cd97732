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

import octogen_dagster as o
import octogen_dagster as od
from octogen_dagster.alerts import PriceDropped
from octogen_dagster.errors import MissingAPIKeyError
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.snapshots.partitions import catalog_partition_key
from tests.api.servers import KEY, RawServer, http
from tests.projects import Project
from tests.results import failure, is_retried, metadata, stored

TOP_UP = "https://octogen.example/top-up"


@dg.asset
def listed() -> pl.DataFrame:
    return pl.DataFrame({"uuid": ["a"]})


BUILDERS: dict[str, Callable[..., dg.AssetsDefinition]] = {
    "catalogs": od.build_catalogs_asset,
    "products": lambda **options: od.build_products_asset("products", **options),
    "details": lambda **options: od.build_product_details_asset(listed, **options),
    "changes": lambda **options: od.build_product_changes_asset(
        od.build_product_history_asset(listed), **options
    ),
    "linked": od.build_linked_datasets_asset,
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
    products = od.build_products_asset("products")
    assert products.get_asset_spec().kinds == {"octogen", "polars", "parquet"}
    assert products.op.pool == od.build_catalogs_asset().op.pool == "octogen"
    policy = products.op.retry_policy
    assert policy
    assert [policy.calculate_delay(attempt) for attempt in (1, 2, 3)] == [10, 30, 70]
    assert policy.max_retries == 3


def test_what_costs_nothing_is_retried_as_the_products_are() -> None:
    products = od.build_products_asset("products", od.ProductSearch(catalogs=["acme"]))
    history = od.build_product_history_asset(products)
    own = dg.AssetSpec("own_prices")
    for follower in (
        history,
        od.build_product_changes_asset(history),
        od.build_product_brands_asset(products),
        od.build_price_alerts_asset(history, rules=[PriceDropped(percent=10)]),
        od.build_price_position_asset(history, own.key),
    ):
        assert follower.op.retry_policy == products.op.retry_policy, follower.key


def test_a_snapshot_that_is_not_there_is_not_waited_for(tmp_path: Path) -> None:
    products = od.build_products_asset("products", od.ProductSearch(catalogs=["acme"]))
    history = od.build_product_history_asset(products)
    resources = {"io_manager": o.ParquetSnapshotIOManager(base_dir=str(tmp_path))}
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [products.to_source_asset(), history],
            resources=resources,
            instance=instance,
            raise_on_error=False,
        )
    (failure,) = result.filter_events(lambda event: event.is_step_failure)
    assert "does not exist" in str(failure.step_failure_data.error)
    assert not result.filter_events(lambda event: event.is_step_up_for_retry)


@pytest.mark.parametrize("build", [BUILDERS[name] for name in BUILDERS if name != "linked"])
def test_resources_and_checks_are_added_to_those_of_octogen(build: Any) -> None:
    made = build()
    check = dg.AssetCheckSpec("own", asset=made.key)
    more = build(
        resource_defs={"mine": dg.ResourceDefinition.hardcoded_resource(1)},
        required_resource_keys={"other"},
        check_specs=[check],
    )
    assert more.required_resource_keys == {*made.required_resource_keys, "mine", "other"}
    assert more.resource_defs.keys() == {*made.resource_defs, "mine"}
    assert [*more.check_specs] == [*made.check_specs, check]


def references(made: dg.AssetsDefinition) -> list[tuple[str, int | None]]:
    """The file and the line of each of an asset's code references."""
    value = made.get_asset_spec().metadata.get("dagster/code_references")
    given = value.code_references if isinstance(value, dg.CodeReferencesMetadataValue) else ()
    found = [each for each in given if isinstance(each, dg.LocalFileCodeReference)]
    return [(each.file_path, each.line_number) for each in found]


def test_the_code_of_an_asset_is_the_line_that_builds_it() -> None:
    frame = inspect.currentframe()
    assert frame
    products = od.build_products_asset("products")
    line = frame.f_lineno
    brands = od.build_product_brands_asset(products)
    assert references(products) == [(__file__, line - 1)]
    assert references(brands) == [(__file__, line + 1)]


@pytest.mark.parametrize("name", ["catalogs", "products", "details"])
def test_a_run_without_a_key_says_which_variables_to_set_and_nothing_of_the_code(
    name: str, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    asset = BUILDERS[name]()
    resources = stored(tmp_path, od.OctogenResource(catalog_source=od.GrantedCatalogs()))
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
    assert not is_retried(result)
    assert data.user_failure_data
    assert data.user_failure_data.description == str(MissingAPIKeyError())
    assert data.error
    assert "OCTOGEN_PLATFORM_API_KEY" in data.error.message
    assert data.error.cause is None
    assert "credentials.py" not in str(data.error)


@pytest.mark.parametrize(
    ("status", "retried"),
    [(status, False) for status in (401, 402, 403, 404, 422)]
    + [(status, True) for status in (400, 409, 500, 503)],
)
def test_an_error_is_retried_unless_a_retry_cannot_fix_it(
    project: Project, status: int, retried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    credit = {"code": "insufficient_credit", "top_up_url": TOP_UP}
    with RawServer(lambda _: http(status, {"detail": credit if status == 402 else "x"})) as server:
        octogen = od.OctogenResource(
            api_key=dg.EnvVar("THE_KEY"), base_url=server.base_url, attempts=1
        )
        asset = od.build_products_asset(
            "products", od.ProductSearch(q="x"), retry_policy=dg.RetryPolicy(max_retries=1)
        )
        result = project.run([asset], octogen, raise_on_error=False)
    assert str(status) in failure(result)
    assert is_retried(result) == retried
    (failed,) = [each for each in result.all_events if each.is_step_failure]
    metadata = getattr(failed.step_failure_data.user_failure_data, "metadata", {})
    bought_at = json.dumps({name: str(value.value) for name, value in metadata.items()})
    assert (TOP_UP in bought_at) == (status == 402)


# A products asset: what a partition is, and what the launchpad changes.


def value(result: dg.ExecuteInProcessResult, node: str, name: str) -> Any:
    return metadata(result, node)[name]


@pytest.mark.parametrize("catalog", ["strada", "a/b, c", "../x", "..."])
def test_a_partition_is_a_whole_catalog(project: Project, shops: Sandbox, catalog: str) -> None:
    shops.grant(catalog, products=130)
    key = catalog_partition_key(catalog)
    project.instance.add_dynamic_partitions("octogen_catalogs", [key])
    products = od.build_products_asset("products", partitions_def=od.catalog_partitions)

    result = project.run([products], partition_key=key)

    assert value(result, "products", "dagster/partition_row_count") == 130
    (path,) = project.folder.rglob("*.parquet")
    assert path.parent == project.folder / "products"
    assert set(pl.read_parquet(path)["catalog_key"]) == {catalog}


@pytest.mark.seed
def test_an_unknown_catalog_fails_with_the_granted_ones_and_is_not_retried(
    project: Project, shops: Sandbox
) -> None:
    products = od.build_products_asset(
        "products",
        od.ProductSearch(catalogs=["northpeak", "farfetch"]),
        retry_policy=dg.RetryPolicy(max_retries=3),
    )
    result = project.run([products], raise_on_error=False)
    assert (
        failure(result)
        .strip()
        .endswith(
            "Catalog 'farfetch' is not granted to the API key. Granted catalogs: northpeak, "
            "strada. Ask Octogen for access, or correct the partition key or the search."
        )
    )
    assert [request.path for request in shops.requests] == ["/catalogs"]


def test_the_catalogs_are_listed_before_a_read_and_after_it_at_most(
    project: Project, shops: Sandbox
) -> None:
    products = od.build_products_asset("products")
    assert project.run([products]).success
    paths = [request.path for request in shops.requests]
    listed = {f"/domains/{host}" for host in shops.hosts}
    assert set(paths[:2]) == listed
    assert sum(path in listed for path in paths) <= 4


def test_a_run_whose_partition_was_deleted_fails_before_it_reads(
    resources: dict[str, Any], shops: Sandbox, instance: dg.DagsterInstance
) -> None:
    products = od.build_products_asset("products", partitions_def=od.catalog_partitions)
    defs = dg.Definitions(assets=[products], resources=resources)
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, tags={"dagster/partition": "strada"}, raise_on_error=False
    )
    assert "Partition 'strada' of products was deleted" in failure(result)
    assert shops.requests == []


# Builders take a name or a `dagster.AssetSpec`, and a search or a mapping of its fields.


PRODUCTS = o.build_products_asset("products", partitions_def=o.catalog_partitions)
HISTORY = o.build_product_history_asset(PRODUCTS)
DATASETS = o.build_linked_datasets_asset()

OF_SPEC: dict[str, Callable[[dg.AssetSpec], dg.AssetsDefinition]] = {
    "products": o.build_products_asset,
    "catalogs": o.build_catalogs_asset,
    "changes": lambda spec: o.build_product_changes_asset(HISTORY, name=spec),
    "details": lambda spec: o.build_product_details_asset(PRODUCTS, name=spec),
    "brands": lambda spec: o.build_product_brands_asset(PRODUCTS, name=spec),
    "linked_datasets": o.build_linked_datasets_asset,
    "linked_products": lambda spec: o.build_linked_products_asset(DATASETS, name=spec),
    "linked_snapshot": lambda spec: o.build_linked_snapshot_asset(DATASETS, name=spec),
}
INPUTS = {"changes": HISTORY, "details": PRODUCTS, "brands": PRODUCTS} | dict.fromkeys(
    ("linked_products", "linked_snapshot"), DATASETS
)


@pytest.mark.parametrize("kind", OF_SPEC)
def test_an_asset_is_what_its_spec_says(kind: str) -> None:
    eager = dg.AutomationCondition.eager()
    spec = dg.AssetSpec(
        ["shop", "mine"],
        deps=["other"],
        description="Mine.",
        metadata={"own": 1},
        group_name="shop",
        code_version="2",
        automation_condition=eager,
        owners=["team:data"],
        tags={"cost": "low"},
        kinds={"snowflake"},
    ).with_io_manager_key("store")
    asset = OF_SPEC[kind](spec)
    built = asset.get_asset_spec()
    assert built.key == spec.key
    assert {dep.asset_key for dep in built.deps} == {
        dg.AssetKey("other"),
        *(INPUTS[kind].keys if kind in INPUTS else ()),
    }
    for name in ("description", "group_name", "code_version", "owners", "kinds"):
        assert getattr(built, name) == getattr(spec, name)
    assert spec.tags.items() <= built.tags.items()
    assert built.automation_condition == eager
    assert built.metadata["own"] == 1
    assert "store" in asset.required_resource_keys
    assert all(check.asset_key == spec.key for check in asset.check_specs)


@pytest.mark.parametrize("kind", OF_SPEC)
def test_what_a_spec_leaves_unset_is_the_builders(kind: str) -> None:
    def visible(asset: dg.AssetsDefinition) -> dict[str, Any]:
        spec = asset.get_asset_spec()
        metadata = {key for key in spec.metadata if key != "dagster/code_references"}
        return {
            **spec._asdict(),
            "metadata": metadata,
            "pool": asset.op.pool,
            "checks": asset.check_specs_by_output_name,
        }

    named = OF_SPEC[kind]("mine")  # type: ignore[arg-type]
    assert visible(OF_SPEC[kind](dg.AssetSpec("mine"))) == visible(named)


def test_partitions_may_be_of_the_spec() -> None:
    spec = dg.AssetSpec("products", partitions_def=o.catalog_partitions)
    assert o.build_products_asset(spec).partitions_def == o.catalog_partitions


def test_a_search_is_a_mapping_of_its_fields() -> None:
    asset = o.build_products_asset("boots", {"q": "boots", "price_max": 200})
    (spec,) = asset.specs
    assert spec.metadata["octogen/search"].value == {
        "q": "boots",
        "price_max": 200,
        "page_size": 100,
    }


def test_a_name_that_dagster_refuses_is_told_with_one_that_it_takes() -> None:
    with pytest.raises(ValueError, match=r"Asset 'boots-2': .* boots_2$"):
        o.build_products_asset("boots-2", {"q": "boots"})
