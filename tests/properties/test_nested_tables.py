"""Nested values: what a table gives back is what was stored, or the load failed and names it."""

from __future__ import annotations

import re
import threading
import uuid
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from octogen_dagster.errors import OctogenTableError
from octogen_dagster.tables.columns import source_columns
from octogen_dagster.tables.destination import Table, TableConnection
from octogen_dagster.tables.load import StoredRows, load
from tests.warehouses import ENGINES, Delta, Lake, needs_iceberg

_NS = st.sampled_from([0, 1, 1_000, 10**18, -1])
_FLOATS = st.sampled_from([0.0, 0.5, 1.5, 2.0**53, float("nan"), float("inf"), 1e300])
_INTEGERS = st.sampled_from([0, 1, 2**53 + 1, -(2**63)])
_LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (pl.Int64(), _INTEGERS),
    (pl.Int8(), st.sampled_from([0, -128])),
    (pl.UInt64(), st.sampled_from([0, 2**53 + 1, 2**64 - 1])),
    (pl.Float64(), _FLOATS),
    (pl.Decimal(38, 12), st.sampled_from([Decimal("1E-12"), Decimal("0.5"), Decimal(10) ** 25])),
    (pl.String(), st.sampled_from(["", "a", "1", "“é”"])),
    (pl.Enum(["a", "b"]), st.sampled_from(["a", "b"])),
    (pl.Boolean(), st.booleans()),
    (pl.Date(), st.sampled_from([date(2026, 1, 2)])),
    (pl.Datetime("ns"), _NS),
    (pl.Datetime("us", "UTC"), _NS),
    (pl.Time(), st.sampled_from([0, 1])),
    (pl.Null(), st.none()),
]
_STRATEGIES = {str(dtype): values for dtype, values in _LEAVES}
_LEAF = st.sampled_from([dtype for dtype, _ in _LEAVES])


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3, unique=True)
    structs = names.flatmap(
        lambda names: st.tuples(*[inner] * len(names)).map(
            lambda types: pl.Struct(dict(zip(names, types, strict=True)))
        )
    )
    return inner.map(pl.List) | structs


TYPES = nested(st.recursive(_LEAF, nested, max_leaves=3))


def relative(dtype: Any) -> st.SearchStrategy[Any]:
    """A type of the same form, most of whose leaves are the same."""
    if isinstance(dtype, pl.Struct):
        types = st.tuples(*(relative(field.dtype) for field in dtype.fields))
        names = [field.name for field in dtype.fields]
        return types.map(lambda types: pl.Struct(dict(zip(reversed(names), types, strict=True))))
    if dtype.is_nested():
        return relative(dtype.inner).map(pl.List)
    return st.just(dtype) | _LEAF


def values(dtype: Any) -> st.SearchStrategy[Any]:
    if isinstance(dtype, pl.Struct):
        fields = {field.name: values(field.dtype) for field in dtype.fields}
        return st.none() | st.fixed_dictionaries(fields)
    if dtype.is_nested():
        return st.none() | st.lists(values(dtype.inner), max_size=2)
    return st.none() | _STRATEGIES[str(dtype)]


@st.composite
def columns(draw: st.DrawFn) -> list[pl.Series]:
    """A column of two snapshots."""
    first = draw(TYPES)
    made = []
    for dtype in (first, draw(st.just(first) | relative(first) | TYPES)):
        rows = draw(st.lists(values(dtype), min_size=1, max_size=3))
        made.append(pl.Series("value", rows, dtype=_written(dtype)).cast(dtype))
    return made


def _written(dtype: Any) -> Any:
    """A type with whole numbers for times, which Python has without nanoseconds."""
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _written(field.dtype) for field in dtype.fields})
    if dtype.is_nested():
        return pl.List(_written(dtype.inner))
    return pl.Int64() if isinstance(dtype, (pl.Datetime, pl.Time)) else dtype


def plain(series: pl.Series) -> list[Any]:
    """Values in one form for all types that hold them; a field that is null may be missing."""
    dtype = series.dtype
    if isinstance(dtype, pl.Struct):
        fields = {name: plain(series.struct.field(name)) for name in series.struct.fields}
        rows = [{n: each[row] for n, each in fields.items()} for row in range(len(series))]
        return [
            None if is_null else {n: value for n, value in row.items() if value is not None}
            for row, is_null in zip(rows, series.is_null(), strict=True)
        ]
    if dtype.is_nested():
        return [None if each is None else plain(each) for each in series]
    if isinstance(dtype, pl.Datetime):
        times = series.dt.epoch("ns")
        return [None if at is None else ("at", dtype.time_zone, at) for at in times]
    if dtype.is_numeric():
        return [None if each is None else _number(each) for each in series]
    return [f"is {each}" if isinstance(each, bool) else each for each in series]


def _number(value: Any) -> Any:
    is_finite = Decimal(value).is_finite()
    return Fraction(value) if is_finite else str(value)


def is_stored(series: pl.Series, name: str, connection: TableConnection) -> bool:
    """Put a snapshot into a table; False if it is refused."""
    frame = pl.DataFrame({"id": range(len(series)), "value": series})
    sources = source_columns(frame.schema, {}, None, has_nested=connection.has_nested)
    rows = StoredRows(
        uuid.uuid4().hex, frame.height, lambda form: iter([form(frame.lazy()).collect()])
    )
    arguments: Any = {"sources": sources, "run_id": "run", "stop": threading.Event()}
    try:
        load(connection, Table("octogen", name, ()), {}, rows, **arguments)
    except OctogenTableError as error:
        assert re.search("Column 'value[^ ]*' ", str(error)), error  # noqa: PT017
        return False
    return True


def read(warehouse: Lake, name: str) -> pl.Series:
    table = warehouse.table(name)
    found = (
        pl.read_delta(table) if isinstance(warehouse, Delta) else pl.scan_iceberg(table).collect()
    )
    found = found.sort("id")
    return found["value"] if "value" in found.columns else pl.Series([None] * found.height)


@pytest.fixture(scope="module", params=["delta", pytest.param("iceberg", marks=needs_iceberg)])
def lake(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    made = ENGINES[request.param](tmp_path_factory.mktemp("tables"))
    assert isinstance(made, Lake)
    return made


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(columns())
def test_a_lake_gives_nested_values_back_or_refuses_them_by_name(
    lake: Lake, snapshots: list[pl.Series]
) -> None:
    name = f"t{uuid.uuid4().hex}"
    with lake.destination.connect() as connection:
        kept = [series for series in snapshots if is_stored(series, name, connection)]
    event(f"{len(kept)} of {len(snapshots)} are stored")
    if kept:
        assert plain(read(lake, name)) == plain(kept[-1])
