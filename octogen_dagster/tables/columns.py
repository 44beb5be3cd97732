"""Converts snapshot columns to table columns, and checks that the conversion is lossless."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from octogen_dagster.errors import OctogenTableError
from octogen_dagster.tables.destination import Column, ColumnType
from octogen_dagster.validation import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_FLATTENED = ("brand", "rating")
"""Structs whose fields become columns."""

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
_ENCODES_SLICES = tuple(map(int, pl.__version__.split(".")[:2])) >= (2, 1)
"""True if this Polars version correctly encodes sliced columns that contain lists.

Earlier versions encode the wrong structs.
"""
_ESCAPED_NUL = r"\u0000"
_NUL_IN_JSON = r"((?:^|[^\\])(?:\\\\)*)\\u0000"
"""Matches an escaped NUL, but not an escaped backslash followed by `u0000`.

Group 1 is the text before the NUL.
"""


class SourceColumn(NamedTuple):
    """A table column and the expression that computes it from the snapshot.

    Attributes:
        dtype: The type of the snapshot column.
        source: The snapshot column; None for a constant.
        target: The table's type for a list or struct; None if all values are null or empty.
    """

    column: Column
    expression: pl.Expr
    dtype: pl.DataType
    source: str | None
    target: pl.DataType | None = None

    @property
    def is_stored(self) -> bool:
        """False for a list or struct whose type is unknown because it contains no values yet."""
        return self.column.type is not ColumnType.NESTED or self.target is not None


def source_columns(
    schema: Mapping[str, pl.DataType],
    descriptions: Mapping[str, str],
    only: Collection[str] | None,
    *,
    has_nested: bool = False,
) -> list[SourceColumn]:
    """Return the table columns for a snapshot schema, limited to the columns in `only`.

    Columns of type Null are skipped. Lists and structs become JSON unless `has_nested` is true.
    """
    for name in only or ():
        if name not in schema:
            raise OctogenTableError(
                f"`columns` contains {name!r}, which is not a column in the snapshot."
                f"{did_you_mean(name, schema)} Its columns are {', '.join(schema)}."
            )
    made: list[SourceColumn] = []
    for name, dtype in schema.items():
        if dtype == pl.Null or (only is not None and name not in only):
            continue
        description = descriptions.get(name, "")
        if name in _FLATTENED and isinstance(dtype, pl.Struct):
            for field in dtype.fields:
                inner: pl.DataType = field.dtype  # type: ignore[assignment]  # an instance here
                described = f"`{name}.{field.name}`: {description}" if description else ""
                expression = pl.col(name).struct.field(field.name)
                inner_name = f"{name}_{field.name}"
                made.append(
                    _made(inner_name, inner, described, expression, name, has_nested=has_nested)
                )
        else:
            made.append(_made(name, dtype, description, pl.col(name), name, has_nested=has_nested))
    names = [each.column.name for each in made]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise OctogenTableError(
            f"Column {min(repeated)!r} has the same name as a flattened struct field. Exclude the "
            "column or the struct with `columns`."
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
    column = Column(name, kind, description)
    return SourceColumn(column, expression.alias(name), dtype, source)


def _type_of(name: str, dtype: pl.DataType) -> ColumnType:
    # JSON cannot represent bytes.
    if dtype.is_nested() and not _any_leaf(dtype, lambda inner: inner == pl.Binary):
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
            f"Snapshot column {name!r} has the type {dtype}, which tables do not support. Exclude "
            "the column with `columns`, or store it as another type."
        )
    return found


def _any_leaf(dtype: Any, is_wanted: Callable[[pl.DataType], bool]) -> bool:
    if isinstance(dtype, pl.Struct):
        return any(_any_leaf(field.dtype, is_wanted) for field in dtype.fields)
    return _any_leaf(dtype.inner, is_wanted) if dtype.is_nested() else is_wanted(dtype)


def reported_type(dtype: pl.DataType) -> ColumnType | pl.DataType | None:
    """Return the column type for a Polars type, or None if tables do not support the type.

    Lists and structs are returned as Polars types.
    """
    if dtype.is_nested():
        return dtype
    return next((kind for kind, staged in _STAGED.items() if staged == dtype), None)


def _nested_type(path: str, source: Any, there: Any, table: str) -> Any:
    """Merge the snapshot's type for a list or struct into the table's type.

    Return None if the type is unknown because all values are null or empty.
    """
    if source == pl.Null:
        return there
    if there is not None and (isinstance(source, pl.Struct), source.is_nested()) != (
        isinstance(there, pl.Struct),
        there.is_nested(),
    ):
        raise _mismatch(path, there, source, table)
    if isinstance(source, pl.Struct):
        types = {field.name: field.dtype for field in there.fields} if there else {}
        for field in source.fields:
            known = types.get(field.name)
            found = _nested_type(f"{path}.{field.name}", field.dtype, known, table)
            types |= {field.name: found} if found else {}
        return pl.Struct(types) if types else None
    if source.is_nested():
        inner = _nested_type(f"{path}[]", source.inner, there and there.inner, table)
        return inner and pl.List(inner)
    kind = _type_of(path, source)
    if kind is ColumnType.TIME:
        raise OctogenTableError(
            f"Column {path!r} has the type Time, which table {table} does not support. Exclude the "
            "column with `columns`."
        )
    if there is None or there == _STAGED[kind] or (there.is_numeric() and kind in _NUMBERS):
        return there or _STAGED[kind]
    raise _mismatch(path, there, source, table)


def _as_json(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Encode a list or struct as JSON."""
    if isinstance(dtype, pl.Struct):
        encoded = _encoded(value)
    else:  # Polars only encodes structs
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
    sources: Sequence[SourceColumn],
    there: Mapping[str, ColumnType | pl.DataType | None],
    table: str,
) -> list[SourceColumn]:
    """Return the columns. For a column that the table already has, use the table's type."""
    cast = []
    for each in sources:
        column, found = each.column, there.get(each.column.name, each.column.type)
        nested = None if isinstance(found, ColumnType) else found
        if column.type is ColumnType.NESTED and (nested or found):
            target = _nested_type(column.name, each.dtype, nested, table)
            cast.append(each._replace(target=target))
        elif isinstance(found, ColumnType) and (
            found is column.type or {found, column.type} <= _NUMBERS
        ):
            cast.append(each._replace(column=column._replace(type=found)))
        else:
            kind = found.value if isinstance(found, ColumnType) else nested
            kind = kind or "unsupported type"
            raise _mismatch(column.name, kind, column.type.value, table)
    return cast


def _mismatch(column: str, there: object, source: object, table: str) -> OctogenTableError:
    return OctogenTableError(
        f"Column {column!r} has the type {there} in table {table}, but the type {source} in the "
        "snapshot. The table was not changed. Drop the column from the table, or set `table` to "
        "another name."
    )


class PreparedFrames:
    """Prepares frames for staging: casts values to the table's types and removes NUL characters."""

    def __init__(self, sources: Sequence[SourceColumn], table: str) -> None:
        self.rows = self.texts_with_nul = 0
        self._table = table
        self._stored = [each for each in sources if each.is_stored]
        self._texts = [each.column.name for each in sources if each.column.type is ColumnType.TEXT]
        self._json = [each.column.name for each in sources if each.column.type is ColumnType.JSON]
        self._checked = [each for each in sources if not _is_exact(each)]

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(each.column for each in self._stored)

    def select(self, snapshot: pl.LazyFrame) -> pl.LazyFrame:
        """Select the table's columns from a snapshot without checking their values."""
        return snapshot.select(
            # Not strict: a failed cast becomes null, and `of` reports the value.
            *(_cast(each) for each in self._stored),
            *(_compared(each).alias(_uncast(each)) for each in self._checked),
        )

    def of(self, selected: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """Yield the frames to stage, or a single empty frame if the snapshot has no rows."""
        self.rows = self.texts_with_nul = 0
        for frame in selected:
            for each in self._checked:
                self._require_equal(frame, each)
            self.rows += frame.height
            yield self._without_nul(frame.drop(map(_uncast, self._checked)))
        if not self.rows:  # an empty snapshot has no batches
            yield pl.DataFrame(schema={each.column.name: _target(each) for each in self._stored})

    def _require_equal(self, frame: pl.DataFrame, each: SourceColumn) -> None:
        value, back = pl.col(_uncast(each)), _back(each).alias("back")
        changed = frame.lazy().filter(back.ne_missing(value)).select(value, back).head(1).collect()
        if changed.is_empty():
            return
        path, kind, found = _difference(each.column.name, each.target, *changed.get_columns())
        if each.column.type is not ColumnType.NESTED:
            kind = each.column.type.value
        if found.dtype.is_nested():
            shown = str(found.to_list()[0])
        else:
            shown = found.to_frame().write_csv(include_header=False).strip()  # with nanoseconds
        advice = "Change the column's type in the table, or set `table` to another name."
        if kind is None or each.column.type is ColumnType.JSON:
            kind = kind or "untyped list or struct"
            advice = "Exclude the column with `columns`, or store it as another type."
        raise OctogenTableError(
            f"Column {path!r} in table {self._table} cannot store the value {shown}, because its "
            f"type is {kind}. The table was not changed. {advice}"
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
    if not is_json:
        return texts.str.replace_all("\0", "", literal=True)
    while True:  # finds one of two adjacent escapes
        mended = texts.str.replace_all(_NUL_IN_JSON, "${1}")
        if mended.equals(texts):
            return mended
        texts = mended


def _cast(each: SourceColumn) -> pl.Expr:
    value, kind = each.expression, each.column.type
    if kind is ColumnType.TIME:  # truncate to microseconds; Polars has no such type
        value = value.cast(pl.Int64) // 1000 * 1000
    if kind is ColumnType.JSON:
        value = _as_json(value, each.dtype)
    elif kind is ColumnType.NESTED and each.dtype != each.target:
        value = _shaped(value, each.dtype, each.target)
    else:
        value = value.cast(_target(each), strict=False)
    return value.alias(each.column.name)


def _compared(each: SourceColumn) -> pl.Expr:
    """Return the snapshot's values before the cast to the table's type."""
    if each.dtype.is_nested():
        return _shaped(each.expression, each.dtype, _comparison_type(each.dtype, each.target))
    return each.expression


def _back(each: SourceColumn) -> pl.Expr:
    """Return the staged values, cast back to the snapshot's type."""
    if not each.dtype.is_nested():
        return pl.col(each.column.name).cast(each.dtype, strict=False)
    dtype = _comparison_type(each.dtype, each.target)
    if each.column.type is ColumnType.JSON:
        return _shaped(pl.col(_uncast(each)), dtype, dtype, _in_json)
    if each.target is None:
        return pl.lit(None, dtype=dtype)
    return _shaped(pl.col(each.column.name), each.target, dtype)


def _comparison_type(source: Any, target: Any) -> Any:
    """Return the type in which nested values are compared.

    The result is the snapshot's type, but arrays become lists and Null becomes the table's type.
    """
    if isinstance(source, pl.Struct):
        types = {field.name: field.dtype for field in target.fields} if target else {}
        return pl.Struct(
            {
                field.name: _comparison_type(field.dtype, types.get(field.name))
                for field in source.fields
            }
        )
    if source.is_nested():
        return pl.List(_comparison_type(source.inner, target and target.inner))
    return target if target and source == pl.Null else source


def _cast_leaf(value: pl.Expr, target: pl.DataType) -> pl.Expr:
    return value.cast(target, strict=False)


def _in_json(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Replace NaN and infinity with null, because JSON cannot represent them."""
    return pl.when(value.is_finite()).then(value) if dtype.is_float() else value


def _shaped(
    value: pl.Expr,
    source: Any,
    target: Any,
    leaf: Callable[[pl.Expr, pl.DataType], pl.Expr] = _cast_leaf,
) -> pl.Expr:
    """Cast a nested value, matching struct fields by name. Polars matches fields by position."""
    if isinstance(source, pl.Struct):
        types = {field.name: field.dtype for field in source.fields}
        fields = [
            _shaped(value.struct.field(field.name), types[field.name], field.dtype, leaf)
            if field.name in types
            else pl.lit(None, dtype=field.dtype)
            for field in target.fields
        ]
        names = [field.name for field in target.fields]
        made = pl.struct(each.alias(name) for each, name in zip(fields, names, strict=True))
        return pl.when(value.is_not_null()).then(made)
    if source.is_nested():
        lists = value.arr.to_list() if isinstance(source, pl.Array) else value
        return lists.list.eval(_shaped(pl.element(), source.inner, target.inner, leaf))
    return leaf(value, target)


def _difference(
    path: str, target: Any, value: pl.Series, back: pl.Series
) -> tuple[str, Any, pl.Series]:
    """Find the first value that was changed by the cast.

    Return a tuple: the value's path, the table's type at this path, and the value.
    """
    differs = value.ne_missing(back)
    value, back = value.filter(differs).head(1), back.filter(differs).head(1)
    if value.has_nulls() or back.has_nulls():
        return path, target, value
    if isinstance(value.dtype, pl.Struct):
        types = {field.name: field.dtype for field in target.fields} if target else {}
        for name in value.struct.fields:
            inner, inner_back = value.struct.field(name), back.struct.field(name)
            if inner.ne_missing(inner_back).any():
                return _difference(f"{path}.{name}", types.get(name), inner, inner_back)
    elif value.dtype.is_nested() and value.list.len().equals(back.list.len()):
        return _difference(f"{path}[]", target and target.inner, value.explode(), back.explode())
    return path, target, value


def _target(each: SourceColumn) -> Any:
    return each.target or _STAGED[each.column.type]


def _uncast(each: SourceColumn) -> str:
    return f"uncast {each.column.name}"


def _is_exact(each: SourceColumn) -> bool:
    """Return True if casting to the table's type is always lossless."""
    if each.column.type is ColumnType.NESTED:
        return _is_exact_nested(each.dtype, each.target)
    if each.column.type is ColumnType.JSON:
        return not _any_leaf(each.dtype, lambda dtype: dtype.is_float())
    return _is_exact_as(each.dtype, each.column.type)


def _is_exact_nested(source: Any, target: Any) -> bool:
    if source in (pl.Null, target):
        return True
    if target is None:
        return False
    if isinstance(source, pl.Struct):
        types = {field.name: field.dtype for field in target.fields}
        return all(_is_exact_nested(each.dtype, types.get(each.name)) for each in source.fields)
    if source.is_nested():
        return _is_exact_nested(source.inner, target.inner)
    kind = reported_type(target)
    return isinstance(kind, ColumnType) and _is_exact_as(source, kind)


def _is_exact_as(source: pl.DataType, target: ColumnType) -> bool:
    if target in (ColumnType.TEXT, ColumnType.BOOLEAN, ColumnType.BINARY):
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
        return False  # has nanoseconds
    if source.is_integer():
        is_small = source not in (pl.UInt64, pl.Int128, pl.UInt128)
        return target in (ColumnType.INTEGER, ColumnType.DECIMAL) and is_small
    return target is _type_of("", source)
