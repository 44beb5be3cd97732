"""Tracking: the key and the tracked columns of a history."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import polars as pl

from octogen_dagster.errors import OctogenSnapshotError, Persistence
from octogen_dagster.frames.columns import PRODUCT_SCHEMA, TIME
from octogen_dagster.frames.stored import PRODUCT_KEY, TRACKED, WATCHED, brand_name, category

CHANGES = ["appeared", "reappeared", "changed"]
SOURCE_TABLE = "octogen.source_table"
"""File metadata key: the linked view that a snapshot was read from."""

COMPUTED: dict[str, pl.DataType] = {
    "valid_from": TIME,
    "valid_to": TIME,
    "is_current": pl.Boolean(),
    "change": pl.Enum(CHANGES),
    "changed": pl.List(pl.String()),
}
"""The columns that a history adds."""
TRACKING = "octogen.tracking"
"""File metadata key: the key and tracked columns. Product histories do not have this metadata."""
SEEN = "product_url"
"""The URL column. A new row starts if the URL changes, but not if only its spelling changes.

If the URL is null, the previous URL is kept.
"""
_DERIVED = ("brand_name", "category")
"""The history columns that are derived from other columns in the snapshot."""

_EXACT = {pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16, pl.UInt32, pl.Float32, pl.Float64}
"""The number types whose values Float64 can represent exactly.

Int64 can represent all values of the integer types in this set.
"""
_FLOAT_DIGITS = 15
"""The number of decimal digits that Float64 always preserves."""


class UnfitSnapshotError(OctogenSnapshotError):
    """Raised if a snapshot or file must be fixed before a history can use it."""

    persistence = Persistence.PERMANENT


@dataclass(frozen=True)
class Tracking:
    """The columns a history keeps from its snapshots.

    Attributes:
        key: The columns that identify a row. History rows are sorted by the last of these columns.
        watched: For each kind of change, the columns to compare.
        types: The types of all columns in the history except computed columns; Null if a type is
            not known yet.
        of_products: True for product histories, in which a snapshot can cover only some catalogs
            and leave other catalogs unchanged.
    """

    key: tuple[str, ...]
    watched: Mapping[str, tuple[str, ...]]
    types: Mapping[str, pl.DataType]
    of_products: bool = False

    @classmethod
    def of_table(cls, key: tuple[str, ...], watched: Mapping[str, tuple[str, ...]]) -> Tracking:
        """Return a `Tracking` whose types are unknown until the table's first snapshot."""
        names = dict.fromkeys([*key, *(name for names in watched.values() for name in names)])
        return cls(key, watched, dict.fromkeys(names, pl.Null()))

    @classmethod
    def read(cls, file_metadata: Mapping[str, str], history: pl.LazyFrame) -> Tracking:
        """Return the `Tracking` of a stored history, based on the file metadata and columns."""
        if (stored := json.loads(file_metadata.get(TRACKING, "null"))) is None:
            return PRODUCTS
        watched = {kind: tuple(names) for kind, names in stored["watched"].items()}
        tracking = cls.of_table(tuple(stored["key"]), watched)
        schema = history.collect_schema()
        kept = [*tracking.types, *({SEEN} & schema.keys())]
        return replace(tracking, types={name: schema[name] for name in dict.fromkeys(kept)})

    def metadata(self) -> dict[str, str]:
        """Return the file metadata that `read` needs to restore this `Tracking`."""
        columns = {"key": self.key, "watched": self.watched}
        return {} if self.of_products else {TRACKING: json.dumps(columns)}

    @property
    def tracked(self) -> list[str]:
        return [name for names in self.watched.values() for name in names]

    @property
    def only_seen(self) -> list[str]:
        """The columns in the history that are neither in the key nor tracked."""
        return [name for name in self.types if name not in (*self.key, *self.tracked)]

    @property
    def order(self) -> list[str]:
        """The columns that a history is sorted by, before it is sorted by `valid_from`."""
        return list(self.key[::-1])

    @property
    def hashed(self) -> pl.Expr:
        """A hash of the row's key, stable only within a process."""
        return pl.struct(*self.key).hash()

    @property
    def is_same(self) -> pl.Expr:
        """An expression that is true if a row has the same key as the previous row."""
        key = pl.col(list(self.key))
        return pl.all_horizontal(key.eq_missing(key.shift()))

    @property
    def goes_on(self) -> pl.Expr:
        """An expression that is true if a row starts when the key's previous row ends."""
        return self.is_same & pl.col("valid_from").eq_missing(pl.col("valid_to").shift())

    @property
    def change(self) -> pl.Expr:
        """An expression that computes `change` by comparing a row with the previous row."""
        earlier = pl.when(self.is_same).then(pl.lit("reappeared")).otherwise(pl.lit("appeared"))
        change = pl.when(self.goes_on).then(pl.lit("changed")).otherwise(earlier)
        return change.cast(pl.Enum(CHANGES))

    @property
    def catalog(self) -> pl.Expr:
        return pl.col("catalog_key") if self.of_products else pl.lit(None, pl.String)

    @property
    def row(self) -> str:
        """The word for a row in messages: `product` or `row`."""
        return "product" if self.of_products else "row"

    @property
    def schema(self) -> pl.Schema:
        """The history's columns."""
        tracked = self.tracked
        known = {name: dtype for name, dtype in self.types.items() if name not in tracked}
        return pl.Schema({**known, **COMPUTED, **{name: self.types[name] for name in tracked}})

    def going_on(self, history: Tracking) -> Tracking:
        """Return this `Tracking` with the types of an existing history.

        This `Tracking` can include more columns than the existing history.
        """
        if self.key != history.key or {*history.tracked} - {*self.tracked}:
            raise UnfitSnapshotError(
                f"The stored history has the key {', '.join(history.key)} and tracks the columns "
                f"{', '.join(history.tracked)}. The asset has a different key or no longer tracks "
                "one of these columns. Restore the asset's `key` and `tracked` arguments, or move "
                "the history file to another folder to start a new history."
            )
        return replace(self, types={**self.types, **history.types})

    def with_types(
        self,
        snapshot: pl.LazyFrame,
        file_metadata: Mapping[str, str],
        kept: Callable[[], Iterable[pl.LazyFrame]] = tuple,
    ) -> Tracking:
        """Return a copy whose column types can store both existing rows and a snapshot's values.

        Raise an error if no such types exist. `kept` returns the existing rows. Converting the
        existing rows must not change their values.
        """
        schema, types = snapshot.collect_schema(), {**self.types}
        for name in [*types, *({SEEN} & schema.keys() - types.keys())]:
            if self.of_products and name in _DERIVED:
                continue
            found, wanted = schema.get(name), types.get(name, pl.Null())
            if found is None and self._may_lack(name, file_metadata):
                continue
            fitting = None if found is None else _fitting(found, wanted)
            if fitting is None:
                raise UnfitSnapshotError(self._misfit(name, found, wanted))
            changed = [snapshot, *(kept() if fitting != wanted != pl.Null else ())]
            if any(_loses_digits(frame, name, fitting) for frame in changed):
                raise UnfitSnapshotError(
                    f"The column {name} has the type {found} in the snapshot and {wanted} in the "
                    f"history. Converting the numbers would lose precision. Store the column as "
                    f"{wanted}."
                )
            types[name] = fitting
        return replace(self, types=types)

    def _misfit(self, name: str, found: pl.DataType | None, wanted: pl.DataType) -> str:
        of_schema = ", its type in octogen_dagster.schemas.PRODUCT_SCHEMA" * self.of_products
        if found is not None:
            return (
                f"The snapshot's column {name} has the type {found}, not {wanted}. Store the "
                f"column as {wanted}{of_schema}."
            )
        as_type = "" if wanted == pl.Null else f" as {wanted}{of_schema}"
        return (
            f"The snapshot has no column {name}, which the history requires. Store the "
            f"column{as_type}."
        )

    def rows(self, snapshot: pl.LazyFrame) -> pl.LazyFrame:
        """Select a snapshot's columns for the history and cast them to the history's types."""
        if self.of_products:
            columns = snapshot.collect_schema()
            derived = brand_name(columns).alias("brand_name"), category(columns).alias("category")
            snapshot = snapshot.with_columns(derived)
        return fitted(snapshot, self.types)

    def lacking(self, snapshot: pl.LazyFrame) -> list[str]:
        """Return the history's columns that are missing from the snapshot."""
        found = {*snapshot.collect_schema(), *(_DERIVED if self.of_products else ())}
        return [name for name in self.types if name not in found]

    def _may_lack(self, name: str, file_metadata: Mapping[str, str]) -> bool:
        is_from_view = self.of_products and SOURCE_TABLE in file_metadata and name != "uuid"
        is_only_seen = name == SEEN and name in self.only_seen
        return is_from_view or (is_only_seen and not self.of_products)


def fitted(frame: pl.LazyFrame, types: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    """Select columns from a frame and cast them to the given types. Missing columns become null."""
    found, columns = frame.collect_schema(), []
    for name, dtype in types.items():
        column = pl.col(name) if name in found else pl.lit(None).alias(name)
        known = found.get(name)
        if isinstance(known, pl.Datetime) and known.time_zone is None:
            column = column.dt.replace_time_zone("UTC")
        columns.append(column.cast(dtype))
    return frame.select(columns)


def _fitting(found: pl.DataType, wanted: pl.DataType) -> pl.DataType | None:
    """Return a type that can hold the values of both types, or None."""
    if isinstance(found, pl.Categorical | pl.Enum):
        found = pl.String()
    if isinstance(found, pl.Datetime):
        found = TIME
    if found in (wanted, pl.Null):
        return wanted
    if wanted == pl.Null:
        return found
    if found.is_integer() and wanted.is_integer():
        return pl.Int64()
    return pl.Float64() if found.is_numeric() and wanted.is_numeric() else None


def _loses_digits(frame: pl.LazyFrame, name: str, wanted: pl.DataType) -> bool:
    """Return True if casting a column would change any of its numbers."""
    found = frame.collect_schema().get(name)
    if found is None or found == wanted or found in _EXACT or not found.is_numeric():
        return False
    if found == pl.Int64 and wanted.is_integer():
        return False
    number = pl.col(name)
    back = number.cast(wanted, strict=False).cast(found, strict=False)
    lost = back.ne_missing(number)
    if isinstance(found, pl.Decimal):
        lost = number.abs() >= 10 ** (_FLOAT_DIGITS - found.scale)
    return bool(frame.select(lost.any()).collect(engine="streaming").item())


PRODUCTS = Tracking(
    tuple(PRODUCT_KEY),
    WATCHED,
    {
        **{name: PRODUCT_SCHEMA[name] for name in (*PRODUCT_KEY, "product_url", *TRACKED)},
        **dict.fromkeys(_DERIVED, pl.String()),
    },
    of_products=True,
)
"""The `Tracking` of all product histories."""
