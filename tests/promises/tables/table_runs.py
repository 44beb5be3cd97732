"""Snapshots and their tables in real runs of Dagster, and processes that are killed at it."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

import octogen_dagster as od
from octogen_dagster.schemas import PRODUCT_SCHEMA
from octogen_dagster.tables import TableConnection, TableDestination
from octogen_dagster.tables.columns import PreparedFrames
from tests.warehouses import Location

Row = dict[str, Any]
CATALOGS = dg.StaticPartitionsDefinition(["acme", "lodge", "strada", "vale"])
QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


def product(number: int, price: float | None, at: datetime, **values: Any) -> Row:
    """A product with each kind of value, for a frame of `PRODUCT_SCHEMA`."""
    image = {"url": f"https://www.acme.example/{number}.jpg", "width": 10 * number}
    return {
        "uuid": f"uuid-{number}",
        "catalog_key": "acme",
        "product_url": f"https://www.acme.example/{number}",
        "title": f"Boot {number} — “größe” 靴 'quoted' \\back",
        "brand": {"name": "Acme", "slug": "acme"},
        "current_price": price,
        "currency": "EUR",
        "in_stock": bool(number % 3),
        "category_path": ["Apparel & Accessories", "Shoes"],
        "sizes": [] if number % 2 else None,
        "primary_image": image if number % 2 else None,
        "images": [image, image],
        "rating": {"average": 4.5, "count": number} if number % 2 else None,
        "updated_at": at,
        "fetched_at": at,
        **values,
    }


def products_frame(rows: Sequence[Row], **columns: pl.Expr) -> pl.DataFrame:
    """Products in the columns of `PRODUCT_SCHEMA`, and further ones."""
    none = pl.DataFrame(schema=PRODUCT_SCHEMA)
    if not rows:
        return none.with_columns(**columns)
    frame = pl.DataFrame(list(rows), infer_schema_length=None)
    whole = pl.concat([none, frame], how="diagonal_relaxed").cast(PRODUCT_SCHEMA)
    return whole.with_columns(**columns)


class Project:
    """Assets whose snapshots are the frames that a test sets, and their tables.

    `frames` are those of the next run, by partition. With `related` the products have changes and
    a history, with a table of each.
    """

    def __init__(
        self,
        base: Path,
        destination: TableDestination,
        partitions_def: dg.PartitionsDefinition[Any] | None = None,
        *,
        related: bool = False,
        backfill_policy: dg.BackfillPolicy | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        self.frames: dict[str | None, pl.DataFrame] = {}
        self.base = base
        self.io_manager = od.ParquetSnapshotIOManager(base_dir=str(base))
        self.instance = dg.DagsterInstance.ephemeral()

        @dg.asset(partitions_def=partitions_def, backfill_policy=backfill_policy)
        def products(context: dg.AssetExecutionContext) -> Any:
            if partitions_def is None:
                return self.frames[None]
            if backfill_policy:
                return {key: self.frames[key] for key in context.partition_keys}
            return self.frames[context.partition_key]

        self.assets: list[dg.AssetsDefinition] = [products]
        if related:
            history = od.build_product_history_asset(products)
            self.assets += [od.build_product_changes_asset(history), history]
        self.tables = [
            od.build_table_asset(
                each,
                destination,
                backfill_policy=backfill_policy,
                columns=columns,
                retry_policy=dg.RetryPolicy(max_retries=1),  # without a wait
            )
            for each in self.assets
        ]

    def publish(self, partition: str | None = None, **options: Any) -> dg.ExecuteInProcessResult:
        """Materialize the snapshots."""
        return self._run(self.assets, partition, **options)

    def store(self, frame: pl.DataFrame, partition: str | None = None) -> None:
        """Materialize the snapshots of a frame."""
        self.frames[partition] = frame
        self.publish(partition)

    def load(self, partition: str | None = None, **options: Any) -> dg.ExecuteInProcessResult:
        """Materialize the tables."""
        return self._run(self.tables, partition, **options)

    def load_metadata(self, partition: str | None = None, table: str = "products") -> Row:
        """Materialize a table, and return its metadata."""
        (asset,) = [each for each in self.tables if each.key.path[-1] == f"{table}_table"]
        result = self._run([asset], partition)
        (event,) = result.asset_materializations_for_node(f"{table}_table")
        return {name: entry.value for name, entry in event.metadata.items()}

    def _run(
        self, assets: Sequence[dg.AssetsDefinition], partition: str | None, **options: Any
    ) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [*self.assets, *self.tables],
            selection=list(assets),
            partition_key=partition,
            instance=self.instance,
            resources={"io_manager": self.io_manager},
            run_config=QUIET,
            **options,
        )

    def stored(self, asset: str = "products", partition: str | None = None) -> pl.DataFrame:
        """Read the snapshot of an asset."""
        path = f"{asset}/{partition}.parquet" if partition else f"{asset}.parquet"
        return pl.read_parquet(self.base / path)


def expected_rows(snapshot: pl.DataFrame, **own: Any) -> list[Row]:
    """The rows that a table must have of a snapshot, written without the code under test."""
    structs = {
        name for name in ("brand", "rating") if isinstance(snapshot.schema.get(name), pl.Struct)
    }
    rows = []
    for row in snapshot.iter_rows(named=True):
        made: Row = {}
        for name, value in row.items():
            if name in structs:
                for field in snapshot.schema[name].fields:  # type: ignore[attr-defined]
                    made[f"{name}_{field.name}"] = value and value[field.name]
            else:
                made[name] = _json(value) if isinstance(value, list | dict) else value
        rows.append({**made, **own})
    return rows


def _json(value: Any) -> Any:
    if isinstance(value, list):
        return [_json(each) for each in value]
    if isinstance(value, dict):
        return {name: _json(each) for name, each in value.items()}
    return value.isoformat() if isinstance(value, datetime) else value


def assert_same_rows(found: Sequence[Row], expected: Sequence[Row]) -> None:
    """Check that a table has exactly these rows, in any order; an absent value is null."""
    names = sorted({name for row in (*found, *expected) for name in row})
    there, wanted = _sorted(found, names), _sorted(expected, names)
    extra = [row for row in there if row not in wanted]
    missing = [row for row in wanted if row not in there]
    assert there == wanted, (
        f"{len(extra)} extra: {extra[:1]}, {len(missing)} missing: {missing[:1]}"
    )


def _sorted(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    whole = [{name: _number(row.get(name)) for name in names} for row in rows]
    return sorted(whole, key=repr)


def _number(value: Any) -> Any:
    """Numbers of all engines in one form."""
    if isinstance(value, Decimal):
        return int(value) if value == int(value) else float(value)
    if isinstance(value, float) and value == int(value):
        return int(value)
    return value


def load_in_process(
    base: str, location: Location, partition: str | None, dies_at: int | None
) -> None:
    """Load the table of products, in a process that is killed before one of its statements.

    Without a statement it ends by itself. Staging is a statement as well.
    """
    if dies_at is not None:
        _die_before(dies_at)
    destination = location.destination()
    project = Project(Path(base), destination, CATALOGS if partition else None)
    project.load(partition)


def count_statements(base: str, destination: TableDestination, partition: str | None) -> int:
    """Load the table of products, and count the statements."""
    counted: list[None] = []
    with _Watched(lambda: counted.append(None)):
        Project(Path(base), destination, CATALOGS if partition else None).load(partition)
    return len(counted)


def load_interrupted(
    base: str, destination: TableDestination, partition: str, number: int, work: Callable[[], None]
) -> None:
    """Load the table of products, and do some work before one of the statements."""
    left = [number]

    def step() -> None:
        left[0] -= 1
        if not left[0]:
            work()

    with _Watched(step):
        Project(Path(base), destination, CATALOGS).load(partition)


def _die_before(number: int) -> None:
    left = [number]

    def step() -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    _Watched(step).__enter__()


_STEPS = {
    *("execute", "query", "stage"),
    # Of a lake: each look, the write, each frame, and the commit after the data.
    *("open", "count_rows", "write", "_without_nul", "commit_table"),
}


class _Watched:
    """Call a function before each statement of a load."""

    def __init__(self, step: Callable[[], object]) -> None:
        self._step = step
        self._kinds = _kinds()
        self._originals: dict[tuple[type, str], Any] = {}

    def __enter__(self) -> None:
        for kind in self._kinds:
            for name in _STEPS:
                if name in vars(kind):
                    self._originals[kind, name] = vars(kind)[name]
                    setattr(kind, name, self._stepping(vars(kind)[name]))

    def __exit__(self, *_: object) -> None:
        for (kind, name), original in self._originals.items():
            setattr(kind, name, original)

    def _stepping(self, work: Any) -> Any:
        def stepping(*arguments: Any) -> Any:
            self._step()
            return work(*arguments)

        return stepping


def _kinds() -> Sequence[type]:
    """The connections of all engines, and what else a load has steps in."""
    from pyiceberg.catalog.sql import SqlCatalog

    kinds: list[type] = [TableConnection]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return [*kinds, PreparedFrames, SqlCatalog]


def partitions_of(rows: Sequence[Row]) -> Mapping[str, int]:
    """The number of rows of each partition in a table."""
    found: dict[str, int] = {}
    for row in rows:
        found[row["partition"]] = found.get(row["partition"], 0) + 1
    return found
