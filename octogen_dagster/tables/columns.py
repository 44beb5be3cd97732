"""The columns of a table that a snapshot becomes: their types, and the frames that are staged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from octogen_dagster.errors import OctogenTableError
from octogen_dagster.tables.destination import Column, ColumnType
from octogen_dagster.validation import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_FLATTENED = ("brand", "rating")
"""The structs whose fields become columns."""

_STAGED: Mapping[ColumnType, pl.DataType] = {
    ColumnType.TEXT: pl.String(),
    ColumnType.INTEGER: pl.Int64(),
    ColumnType.FLOAT: pl.Float64(),
    ColumnType.DECIMAL: pl.Decimal(38, 9),
    ColumnType.BOOLEAN: pl.Boolean(),
    ColumnType.DATE: pl.Date(),
    ColumnType.TIME: pl.Time(),
    ColumnType.TIMESTAMP: pl.Datetime("us", "UTC"),
    ColumnType.LOCAL_TIMESTAMP: pl.Datetime("us"),
    ColumnType.BINARY: pl.Binary(),
    ColumnType.JSON: pl.String(),
}
_NUMBERS = {ColumnType.INTEGER, ColumnType.FLOAT, ColumnType.DECIMAL}
_EXACT = {
    *(ColumnType.TEXT, ColumnType.JSON, ColumnType.NESTED),
    *(ColumnType.BOOLEAN, ColumnType.BINARY),
}
"""The types that hold each value of the types that become them."""
_ENCODES_SLICES = tuple(map(int, pl.__version__.split(".")[:2])) >= (2, 1)
"""False if Polars encodes wrong structs of a list that is a part of a longer column."""
_ESCAPED_NUL = r"\u0000"
_NUL_IN_JSON = r"((?:^|[^\\])(?:\\\\)*)\\u0000"
"""An escape of NUL, and not the end of an escaped backslash before `u0000`, with what is before."""


class SourceColumn(NamedTuple):
    """A column of a table, and the expression that makes it from the snapshot."""

    column: Column
    expression: pl.Expr
    dtype: pl.DataType
    source: str | None


def source_columns(
    schema: Mapping[str, pl.DataType],
    descriptions: Mapping[str, str],
    only: Collection[str] | None,
    *,
    has_nested: bool = False,
) -> list[SourceColumn]:
    """The columns of the table of a snapshot with a schema, or of those of its columns in `only`.

    A column without a type, in which all is null, is left out until it has one. Lists and structs
    are JSON unless the table may have nested ones.
    """
    for name in only or ():
        if name not in schema:
            raise OctogenTableError(
                f"The snapshot has no column {name!r}, which `columns` names."
                f"{did_you_mean(name, schema)} It has {', '.join(schema)}."
            )
    made: list[SourceColumn] = []
    for name, dtype in schema.items():
        if dtype == pl.Null or (has_nested and _has(dtype, pl.Null)):
            continue
        if only is not None and name not in only:
            continue
        description = descriptions.get(name, "")
        if name in _FLATTENED and isinstance(dtype, pl.Struct):
            for field in dtype.fields:
                inner: pl.DataType = field.dtype  # type: ignore[assignment]  # an instance here
                of = f"`{field.name}` of `{name}`: {description}" if description else ""
                expression = pl.col(name).struct.field(field.name)
                inner_name = f"{name}_{field.name}"
                made.append(_made(inner_name, inner, of, expression, name, has_nested=has_nested))
        else:
            made.append(_made(name, dtype, description, pl.col(name), name, has_nested=has_nested))
    names = [each.column.name for each in made]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise OctogenTableError(
            f"The snapshot has a column {min(repeated)!r}, and the field of a struct becomes a "
            "column of the same name. Leave one of them out by `columns`."
        )
    return made


def _made(
    name: str,
    dtype: pl.DataType,
    description: str,
    expression: pl.Expr,
    source: str,
    *,
    has_nested: bool,
) -> SourceColumn:
    is_nested = has_nested and dtype.is_nested()
    kind = ColumnType.NESTED if is_nested else _type_of(name, dtype)
    if kind is ColumnType.JSON:
        expression = _as_json(expression, dtype)
    column = Column(name, kind, description)
    return SourceColumn(column, expression.alias(name), dtype, source)


def _type_of(name: str, dtype: pl.DataType) -> ColumnType:
    if dtype.is_nested() and not _has(dtype, pl.Binary):  # which JSON does not have
        return ColumnType.JSON
    if isinstance(dtype, pl.UInt64 | pl.Int128 | pl.UInt128 | pl.Decimal):
        return ColumnType.DECIMAL
    if isinstance(dtype, pl.Datetime):
        return ColumnType.TIMESTAMP if dtype.time_zone else ColumnType.LOCAL_TIMESTAMP
    if dtype.is_integer():
        return ColumnType.INTEGER
    if dtype.is_float():
        return ColumnType.FLOAT
    simple: dict[Any, ColumnType] = {
        pl.Boolean: ColumnType.BOOLEAN,
        pl.Date: ColumnType.DATE,
        pl.Time: ColumnType.TIME,
        pl.Binary: ColumnType.BINARY,
        pl.String: ColumnType.TEXT,
        pl.Categorical: ColumnType.TEXT,
        pl.Enum: ColumnType.TEXT,
    }
    found = simple.get(dtype.base_type())
    if found is None:
        raise OctogenTableError(
            f"The column {name!r} of the snapshot is of the type {dtype}, which no table has. "
            "Leave it out by `columns`, or store it as another type."
        )
    return found


def _has(dtype: Any, wanted: type[pl.DataType]) -> bool:
    """True for a type, and for lists and structs of it."""
    if isinstance(dtype, pl.Struct):
        return any(_has(field.dtype, wanted) for field in dtype.fields)
    return _has(dtype.inner, wanted) if dtype.is_nested() else dtype == wanted


def reported_type(dtype: pl.DataType) -> ColumnType | None:
    """The type of a column whose values are of a type of Polars; None for another's."""
    if dtype.is_nested():
        return ColumnType.NESTED
    return next((kind for kind, staged in _STAGED.items() if staged == dtype), None)


def _staged(name: str, kind: ColumnType, dtype: Any) -> pl.DataType:
    """The type of Polars in which a column is staged."""
    if kind is not ColumnType.NESTED:
        return _STAGED[kind]

    def staged(inner: Any) -> pl.DataType:
        is_nested = inner.is_nested()
        return _staged(name, ColumnType.NESTED if is_nested else _type_of(name, inner), inner)

    if isinstance(dtype, pl.Struct):
        return pl.Struct([pl.Field(field.name, staged(field.dtype)) for field in dtype.fields])
    return pl.List(staged(dtype.inner))


def _as_json(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """A list or struct as JSON."""
    if isinstance(dtype, pl.Struct):
        encoded = _encoded(value)
    else:  # Polars encodes structs alone
        wrapped = _encoded(pl.struct(value.alias("")))
        encoded = wrapped.str.strip_prefix('{"":').str.strip_suffix("}")
    return pl.when(value.is_not_null()).then(encoded)


def _encoded(structs: pl.Expr) -> pl.Expr:
    if _ENCODES_SLICES:
        return structs.struct.json_encode()

    def encode(batch: pl.Series) -> pl.Series:
        copied = batch.gather(pl.int_range(len(batch), eager=True))
        return copied.struct.json_encode()

    return structs.map_batches(encode, return_dtype=pl.String(), is_elementwise=True)


def cast_columns(
    sources: Sequence[SourceColumn], there: Mapping[str, ColumnType | None], table: str
) -> list[SourceColumn]:
    """The columns in the types that the table already has."""
    cast = []
    for each in sources:
        column, found = each.column, there.get(each.column.name, each.column.type)
        if found is not column.type and not {found, column.type} <= _NUMBERS:
            kind = found.value if found else "type that this package does not make"
            raise OctogenTableError(
                f"The column {column.name!r} of the table {table} is a {kind}, and that of the "
                f"snapshot a {column.type.value}. Nothing was changed. Rename or drop the table's "
                "column, or load into another table."
            )
        cast.append(each._replace(column=column._replace(type=found or column.type)))
    return cast


class PreparedFrames:
    """The frames that are staged: in the types of the table, and without NUL."""

    def __init__(self, sources: Sequence[SourceColumn], table: str) -> None:
        self.rows = self.texts_with_nul = 0
        self._table = table
        self._sources = sources
        self._texts = [each.column.name for each in sources if each.column.type is ColumnType.TEXT]
        self._json = [each.column.name for each in sources if each.column.type is ColumnType.JSON]
        self._checked = [each for each in sources if not _is_exact(each)]

    def select(self, snapshot: pl.LazyFrame) -> pl.LazyFrame:
        """The rows of a snapshot with the columns of the table, not yet checked."""
        return snapshot.select(
            # Not strict: what cannot be cast becomes null, and `of` says which value it was.
            *(_cast(each) for each in self._sources),
            *(each.expression.alias(_uncast(each)) for each in self._checked),
        )

    def of(self, selected: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """Yield the frames that are staged, which is one without rows if there are none."""
        self.rows = self.texts_with_nul = 0
        for frame in selected:
            for each in self._checked:
                self._require_equal(frame, each)
            self.rows += frame.height
            yield self._without_nul(frame.drop(map(_uncast, self._checked)))
        if not self.rows:  # an object without rows has no batch
            yield pl.DataFrame(schema={each.column.name: _target(each) for each in self._sources})

    def _require_equal(self, frame: pl.DataFrame, each: SourceColumn) -> None:
        name, uncast = each.column.name, _uncast(each)
        back = pl.col(name).cast(each.dtype, strict=False)
        changed = frame.lazy().filter(back.ne_missing(pl.col(uncast))).select(uncast).head(1)
        if not (found := changed.collect()).is_empty():
            value = found.write_csv(include_header=False).strip()  # with nanoseconds
            raise OctogenTableError(
                f"The column {name!r} of the table {self._table} is a {each.column.type.value}, "
                f"and cannot hold {value} of the snapshot. Nothing was changed. Change "
                "the type of the table's column, or load into another table."
            )

    def _without_nul(self, frame: pl.DataFrame) -> pl.DataFrame:
        has_nul = frame.select(
            pl.col(self._texts).str.contains("\0", literal=True).any(),
            pl.col(self._json).str.contains(_ESCAPED_NUL, literal=True).any(),
        )
        for name in has_nul.columns:
            if has_nul[name].item():
                texts = frame[name]
                mended = _mended(texts, is_json=name in self._json)
                self.texts_with_nul += int((mended != texts).sum())
                frame = frame.with_columns(mended)
        return frame


def _mended(texts: pl.Series, *, is_json: bool) -> pl.Series:
    """Texts without NUL."""
    if not is_json:
        return texts.str.replace_all("\0", "", literal=True)
    while True:  # of two in a row, one is found at a time
        mended = texts.str.replace_all(_NUL_IN_JSON, "${1}")
        if mended.equals(texts):
            return mended
        texts = mended


def _cast(each: SourceColumn) -> pl.Expr:
    """A column in the type of the table."""
    value = each.expression
    if each.column.type is ColumnType.TIME:  # of microseconds, which Polars has no type for
        value = value.cast(pl.Int64) // 1000 * 1000
    is_strict = each.column.type is ColumnType.NESTED  # whose values are not compared
    return value.cast(_target(each), strict=is_strict).alias(each.column.name)


def _target(each: SourceColumn) -> pl.DataType:
    return _staged(each.column.name, each.column.type, each.dtype)


def _uncast(each: SourceColumn) -> str:
    return f"uncast {each.column.name}"


def _is_exact(each: SourceColumn) -> bool:
    """True if a cast to the type of the table changes no value of the type, whatever it is."""
    source, target = each.dtype, each.column.type
    if target in _EXACT:
        return True
    if isinstance(source, pl.Decimal):
        return (
            target is ColumnType.DECIMAL
            and source.scale <= 9
            and source.precision - source.scale <= 29
        )
    if isinstance(source, pl.Datetime):
        return source.time_unit != "ns"
    if isinstance(source, pl.Time):
        return False  # it has nanoseconds
    if source.is_integer():
        is_small = source not in (pl.UInt64, pl.Int128, pl.UInt128)
        return target in (ColumnType.INTEGER, ColumnType.DECIMAL) and is_small
    return target is _type_of(each.column.name, source)
