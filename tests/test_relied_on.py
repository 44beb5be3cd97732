"""What this package relies on and no library promises: a test for each, by its name.

A release that breaks one fails here, and not in a user's run. Where a promised way
exists, take it and delete the test.
"""

import importlib.util
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, get_args, get_type_hints

import dagster as dg
import polars as pl
import pytest
from dagster._core.scheduler.instigation import InstigatorState
from dagster_shared.libraries import DagsterLibraryRegistry
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
    BigQueryReadTransport,
)

import octogen_dagster
from octogen_dagster import OctogenResource
from octogen_dagster.assets.latest import DATA_VERSION_TAG
from octogen_dagster.bigquery.queries import _storage_client
from octogen_dagster.demo.run import INSTANCE
from octogen_dagster.errors import UnsupportedDagsterError, dagster_private
from octogen_dagster.io_source import collect_batches, errors_as_raised, io_source, python_source
from octogen_dagster.reading.pushdown import Pushdown
from tests.needs import needs


class UnknownError(Exception):
    """An error of a source."""


def failing(*_: object) -> Iterator[pl.DataFrame]:
    yield pl.DataFrame({"number": [1]})
    raise UnknownError("of the second frame")


SCHEMA = pl.Schema({"number": pl.Int64})


def test_register_io_source_raises_what_a_source_raises() -> None:
    with pytest.raises(UnknownError, match="of the second frame"), errors_as_raised():
        python_source(failing, SCHEMA).collect()


def test_a_launcher_executes_runs_in_the_process_of_the_daemon(tmp_path: Path) -> None:
    """The demo names it in its `dagster.yaml`."""
    (tmp_path / "dagster.yaml").write_text(INSTANCE)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert type(instance.run_launcher).__name__ == "SyncInMemoryRunLauncher"


def test_a_frame_that_occurs_twice_in_a_query_is_read_once() -> None:
    """By `register_io_source(is_pure=True)` with a `select` on top of it."""
    reads: list[int] = []

    def frames(*_: object) -> Iterator[pl.DataFrame]:
        reads.append(1)
        yield pl.DataFrame({"number": [1, 2]})

    frame = io_source(SCHEMA, frames)
    joined = frame.join(frame.select(pl.col("number") + 1), on="number")
    assert joined.collect(engine="streaming")["number"].to_list() == [2]
    assert len(reads) == 1


def test_a_source_is_told_of_columns_rows_and_the_predicate() -> None:
    asked: list[tuple[object, ...]] = []

    def read(*query: object) -> Iterator[pl.DataFrame]:
        asked.append(query)
        yield pl.DataFrame({"number": [1, 2]})

    python_source(read, SCHEMA).filter(pl.col("number") > 1).collect()
    python_source(read, SCHEMA).head(1).collect()
    columns, predicate, n_rows, _ = asked[0]
    assert columns in (None, ["number"])
    assert isinstance(predicate, pl.Expr)
    assert (n_rows, asked[1][2]) == (None, 1)


@pytest.mark.parametrize(
    ("predicate", "part"),
    [
        (pl.col("current_price") <= 80, Pushdown(price_max=80.0)),
        (pl.col("current_price").is_between(10, 80), Pushdown(price_min=10.0, price_max=80.0)),
        (pl.col("catalog_key") == "acme", Pushdown(catalogs=frozenset(["acme"]))),
        (pl.col("catalog_key").is_in(["acme", "b"]), Pushdown(catalogs=frozenset(["acme", "b"]))),
    ],
    ids=["price", "between", "catalog", "catalogs"],
)
def test_a_predicate_is_read_as_json(predicate: pl.Expr, part: Pushdown) -> None:
    """`Expr.meta.serialize(format="json")` has no promised form."""
    asked: list[pl.Expr | None] = []

    def read(_: object, predicate: pl.Expr | None, *__: object) -> Iterator[pl.DataFrame]:
        asked.append(predicate)
        yield pl.DataFrame(schema=schema)

    schema = pl.Schema({"current_price": pl.Float64, "catalog_key": pl.String})
    python_source(read, schema).filter(predicate).collect()
    assert [Pushdown.of(each) for each in asked if each is not None] == [part]


def test_batches_come_in_order_and_may_be_left() -> None:
    frame = pl.LazyFrame({"number": range(1_000)})
    batches = frame.collect_batches(chunk_size=100, lazy=True)
    assert next(batches)["number"][0] == 0
    del batches
    whole = pl.concat(frame.collect_batches(chunk_size=100, lazy=True))
    assert whole["number"].to_list() == list(range(1_000))
    streamed = pl.concat(frame.collect_batches(engine="streaming"))
    assert streamed["number"].to_list() == list(range(1_000))


INTERRUPTED = """
import os, signal
import polars as pl
from octogen_dagster.io_source import raise_interrupt
from octogen_dagster.io_source import python_source

def read(*_):
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1_000_000):
        raise_interrupt()
    print("read to its end")
    yield pl.DataFrame({"number": [1]})

python_source(read, pl.Schema({"number": pl.Int64})).collect()
"""


def test_a_query_of_python_ends_at_an_interrupt() -> None:
    """Sorting raises the interrupt, in whichever thread Polars executes the source."""
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False
    )
    # Python ends so after a KeyboardInterrupt that nobody caught.
    assert (ended.stdout, ended.returncode) == ("", -signal.SIGINT)


def test_polars_names_the_errors_of_an_object_store() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    frame = pl.scan_parquet(
        "s3://bucket/shop.parquet",
        storage_options={
            "aws_access_key_id": "key",
            "aws_secret_access_key": "none",
            "aws_region": "us-east-1",
            "aws_endpoint_url": f"http://127.0.0.1:{port}",
            "aws_allow_http": "true",
            "max_retries": 0,
        },
    )
    with pytest.raises((OSError, pl.exceptions.PolarsError), match="object-store error: "):
        frame.collect()


def test_an_instance_knows_the_last_id_and_tags_of_each_partition(
    instance: dg.DagsterInstance,
) -> None:
    key, kind = dg.AssetKey("shops"), dg.DagsterEventType.ASSET_MATERIALIZATION
    for version, partition in enumerate(["a", "b", "a"]):
        instance.report_runless_asset_event(
            dg.AssetMaterialization(key, partition=partition, tags={DATA_VERSION_TAG: str(version)})
        )
    ids = instance.get_latest_storage_id_by_partition(key, kind)
    assert ids["a"] > ids["b"]
    assert instance.get_latest_storage_id_by_partition(key, kind, {"b"}) == {"b": ids["b"]}
    tags = instance.event_log_storage.get_latest_tags_by_partition(key, kind, [DATA_VERSION_TAG])
    assert tags == {"a": {DATA_VERSION_TAG: "2"}, "b": {DATA_VERSION_TAG: "1"}}


def test_a_step_knows_its_io_manager_and_the_checks_of_its_run() -> None:
    seen: dict[str, object] = {}

    @dg.asset(io_manager_key="values")
    def shops(context: dg.AssetExecutionContext) -> int:
        key = context.assets_def.get_io_manager_key_for_asset_key(context.asset_key)
        seen["manager"] = type(getattr(context.resources, key))
        nodes = [each.assets_def.node_def for each in context.job_def.asset_layer.data]
        seen["has_check"] = any(each is checked.node_def for each in nodes)
        return 1

    @dg.asset_check(asset=shops)
    def checked() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    defs = dg.Definitions(
        assets=[shops], asset_checks=[checked], resources={"values": dg.mem_io_manager}
    )
    assert defs.resolve_implicit_global_asset_job_def().execute_in_process().success
    assert seen == {"manager": dg.InMemoryIOManager, "has_check": True}


def test_a_check_of_a_partition_names_its_materialization() -> None:
    """The class that `AssetCheckEvaluation` takes for this is not exported."""
    hints = get_type_hints(dg.AssetCheckEvaluation)
    target = get_args(hints["target_materialization_data"])[0]
    made = target(storage_id=1, run_id="run", timestamp=2.0)
    assert (made.storage_id, made.run_id, made.timestamp) == (1, "run", 2.0)


def test_an_io_manager_adds_metadata_to_a_partition_and_an_input_manager_has_its_config(
    instance: dg.DagsterInstance,
) -> None:
    class Noting(dg.ConfigurableIOManager):
        folder: str

        def handle_output(self, context: dg.OutputContext, obj: object) -> None:
            step = context.step_context
            for key in context.asset_partition_keys:
                step.add_asset_metadata({"of": key}, context.asset_key, partition_key=key)

        def load_input(self, context: dg.InputContext) -> object:
            config = context.step_context.resolved_run_config.resources["io_manager"].config
            return config["folder"]

    days = dg.StaticPartitionsDefinition(["a", "b"])

    @dg.asset(partitions_def=days)
    def shops() -> int:
        return 1

    @dg.asset(partitions_def=days)
    def after(shops: object) -> object:
        assert shops == "here"
        return shops

    result = dg.materialize(
        [shops, after],
        partition_key="b",
        resources={"io_manager": Noting(folder="here")},
        instance=instance,
    )
    (event,) = result.asset_materializations_for_node("shops")
    assert event.metadata["of"].value == "b"


def test_a_resource_without_a_setup_needs_no_block() -> None:
    """By `ConfigurableResource._is_cm_resource_cls`."""

    @dg.sensor(asset_selection="*")
    def sensor(octogen: OctogenResource) -> dg.SkipReason:
        return dg.SkipReason(str(octogen.api_key))

    resource = OctogenResource(api_key="sandbox-key")
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance, resources={"octogen": resource})
        assert isinstance(sensor(context), dg.SkipReason)


def test_dagster_lists_this_package_among_its_libraries() -> None:
    assert DagsterLibraryRegistry.get()["octogen-dagster"] == octogen_dagster.__version__


def test_a_sensor_finds_its_last_ticks() -> None:
    fields = {"instigator_name", "instigator_origin_id", "selector_id", "origin"}
    assert fields <= set(dir(InstigatorState))
    with dg.instance_for_test() as instance:
        assert list(instance.all_instigator_state()) == []
        assert list(instance.get_ticks("origin", "selector", limit=3)) == []


@pytest.mark.parametrize(
    "package",
    ["dagster._daemon", pytest.param("dagster_webserver", marks=needs("dagster_webserver"))],
)
def test_a_package_of_dagster_is_a_command(package: str) -> None:
    """The demo starts a daemon and the UI by it."""
    assert importlib.util.find_spec(f"{package}.__main__")


def test_a_client_of_bigquery_opens_one_of_the_storage_read_api_with_its_credentials() -> None:
    credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
    client: Any = bigquery.Client(project="my-project", credentials=credentials)
    with closing(client), closing(client._ensure_bqstorage_client().transport) as transport:
        assert isinstance(transport, BigQueryReadTransport)


class Connection(dg.ConfigurableResource[Any], dg.IAttachDifferentObjectToOpContext):
    def get_object_to_set_on_execution_context(self) -> Any:
        return "a client"


@dg.asset(required_resource_keys={"bigquery"})
def connected(context) -> None:  # type: ignore[no-untyped-def]  # Dagster reads annotations
    assert context.resources.bigquery == "a client"
    assert isinstance(context.resources.original_resource_dict["bigquery"], Connection)


def test_a_context_has_the_resource_that_makes_a_client_of_itself() -> None:
    assert dg.materialize([connected], resources={"bigquery": Connection()}).success


def test_definitions_ask_an_op_for_its_resources() -> None:
    """`require_catalog_source` adds a requirement of its own."""

    @dg.op(required_resource_keys={"octogen"})
    def read() -> None: ...

    found: list[Any] = list(read.get_resource_requirements(None, None))
    assert "octogen" in [each.key for each in found]


def test_a_dagster_without_a_name_is_named_in_the_error(
    instance: dg.DagsterInstance,
) -> None:
    with pytest.raises(UnsupportedDagsterError) as caught:
        dagster_private(instance, "get_latest_of_nothing")
    for part in ("DagsterInstance.get_latest_of_nothing", dg.__version__, "octogen-dagster/issues"):
        assert part in str(caught.value)


def test_batches_of_a_polars_without_collect_batches_are_of_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(pl.LazyFrame, "collect_batches")
    batches = collect_batches(pl.LazyFrame({"number": range(25)}), 10)
    assert [len(batch) for batch in batches] == [10, 10, 5]


def test_rows_come_by_rest_without_a_client_of_the_storage_read_api(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    monkeypatch.delattr(bigquery.Client, "_ensure_bqstorage_client")
    client: Any = bigquery.Client("my-project", AnonymousCredentials())  # type: ignore[no-untyped-call]
    with closing(client), _storage_client(client) as storage:
        assert storage is None
