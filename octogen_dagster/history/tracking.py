"""What a history keeps of the snapshots of a table: which columns, and what tells rows apart."""

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
"""The metadata of a file that has the rows of a linked view, whose columns are not ours."""

COMPUTED: dict[str, pl.DataType] = {
    "valid_from": TIME,
    "valid_to": TIME,
    "is_current": pl.Boolean(),
    "change": pl.Enum(CHANGES),
    "changed": pl.List(pl.String()),
}
"""The columns of a history that its table does not have."""
TRACKING = "octogen.tracking"
"""The metadata of a file that says what the history of a table of one's own keeps."""
SEEN = "product_url"
"""The column of which another page begins a row. Another spelling does not, nor does a null."""
_DERIVED = ("brand_name", "category")
"""The columns of a history that its products have in another form."""

_EXACT = {pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16, pl.UInt32, pl.Float32, pl.Float64}
"""The types of numbers that Float64 has all of; integers of them are in Int64, too."""
_FLOAT_DIGITS = 15
"""The decimal digits of which Float64 has every number."""


class UnfitSnapshotError(OctogenSnapshotError):
    """What is in a file, or is asked of it, does not fit, and will not by itself."""

    persistence = Persistence.PERMANENT


@dataclass(frozen=True)
class Tracking:
    """What a history keeps of the snapshots of a table.

    Attributes:
        key: The columns that tell rows apart. The rows of a history are sorted by the last of them.
        watched: The kinds of change, each with the columns that are compared.
        types: The types of all columns that it keeps; Null for one that is not known yet.
        of_products: True if a snapshot is of some catalogs, and says nothing of the others.
    """

    key: tuple[str, ...]
    watched: Mapping[str, tuple[str, ...]]
    types: Mapping[str, pl.DataType]
    of_products: bool = False

    @classmethod
    def of_table(cls, key: tuple[str, ...], watched: Mapping[str, tuple[str, ...]]) -> Tracking:
        """What the history of a table keeps whose types only its snapshots say."""
        names = dict.fromkeys([*key, *(name for names in watched.values() for name in names)])
        return cls(key, watched, dict.fromkeys(names, pl.Null()))

    @classmethod
    def read(cls, file_metadata: Mapping[str, str], history: pl.LazyFrame) -> Tracking:
        """What a stored history keeps, as the metadata of its file and its columns say."""
        if (said := json.loads(file_metadata.get(TRACKING, "null"))) is None:
            return PRODUCTS
        watched = {kind: tuple(names) for kind, names in said["watched"].items()}
        tracking = cls.of_table(tuple(said["key"]), watched)
        schema = history.collect_schema()
        kept = [*tracking.types, *({SEEN} & schema.keys())]
        return replace(tracking, types={name: schema[name] for name in dict.fromkeys(kept)})

    def metadata(self) -> dict[str, str]:
        """The metadata of a history's file that `read` takes."""
        said = {"key": self.key, "watched": self.watched}
        return {} if self.of_products else {TRACKING: json.dumps(said)}

    @property
    def tracked(self) -> list[str]:
        return [name for names in self.watched.values() for name in names]

    @property
    def only_seen(self) -> list[str]:
        """The columns that are neither in the key nor tracked."""
        return [name for name in self.types if name not in (*self.key, *self.tracked)]

    @property
    def order(self) -> list[str]:
        """The columns by which the rows of a history are sorted, before `valid_from`."""
        return list(self.key[::-1])

    @property
    def hashed(self) -> pl.Expr:
        """A number for a row's key, which is the same within a process."""
        return pl.struct(*self.key).hash()

    @property
    def is_same(self) -> pl.Expr:
        """True if a row has the key of the one before it."""
        key = pl.col(list(self.key))
        return pl.all_horizontal(key.eq_missing(key.shift()))

    @property
    def goes_on(self) -> pl.Expr:
        """True if a row begins when the one before it ends, of the same key."""
        return self.is_same & pl.col("valid_from").eq_missing(pl.col("valid_to").shift())

    @property
    def change(self) -> pl.Expr:
        """What happened at the beginning of a row, by the one before it."""
        earlier = pl.when(self.is_same).then(pl.lit("reappeared")).otherwise(pl.lit("appeared"))
        change = pl.when(self.goes_on).then(pl.lit("changed")).otherwise(earlier)
        return change.cast(pl.Enum(CHANGES))

    @property
    def catalog(self) -> pl.Expr:
        return pl.col("catalog_key") if self.of_products else pl.lit(None, pl.String)

    @property
    def row(self) -> str:
        """What a row of a snapshot is."""
        return "product" if self.of_products else "row"

    @property
    def schema(self) -> pl.Schema:
        """The columns of the history."""
        tracked = self.tracked
        known = {name: dtype for name, dtype in self.types.items() if name not in tracked}
        return pl.Schema({**known, **COMPUTED, **{name: self.types[name] for name in tracked}})

    def going_on(self, history: Tracking) -> Tracking:
        """The same in the types of a history that goes on; a column may be new to it."""
        if self.key != history.key or {*history.tracked} - {*self.tracked}:
            said = ", ".join(history.tracked)
            raise UnfitSnapshotError(
                f"The history has the key {', '.join(history.key)} and tracks {said}, and its "
                "asset has another key or lacks one of these columns. Correct the asset, or move "
                "the file of the history away to begin anew."
            )
        return replace(self, types={**self.types, **history.types})

    def with_types(
        self,
        snapshot: pl.LazyFrame,
        file_metadata: Mapping[str, str],
        kept: Callable[[], Iterable[pl.LazyFrame]] = tuple,
    ) -> Tracking:
        """The same in types that the values of a snapshot have, too; an error if there are none.

        `kept` returns the rows that are in the history, whose values stay what they are.
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
                advice = f"Store it as {wanted}, as octogen_dagster.schemas.PRODUCT_SCHEMA has it."
                if not self.of_products:
                    advice = "Store it with it." if found is None else f"Store it as {wanted}."
                raise UnfitSnapshotError(
                    f"The snapshot has {'no column' if found is None else 'a column'} "
                    f"{name}{'' if found is None else f' of the type {found}'}, so it has no place "
                    f"in a history. {advice}"
                )
            changed = [snapshot, *(kept() if fitting != wanted != pl.Null else ())]
            if any(_loses_digits(frame, name, fitting) for frame in changed):
                raise UnfitSnapshotError(
                    f"The snapshot has a column {name} of the type {found}, and the history has it "
                    f"as {wanted}: numbers would lose digits. Store it as {wanted}."
                )
            types[name] = fitting
        return replace(self, types=types)

    def rows(self, snapshot: pl.LazyFrame) -> pl.LazyFrame:
        """The columns of a snapshot that a history keeps, in their types."""
        if self.of_products:
            columns = snapshot.collect_schema()
            derived = brand_name(columns).alias("brand_name"), category(columns).alias("category")
            snapshot = snapshot.with_columns(derived)
        return fitted(snapshot, self.types)

    def lacking(self, snapshot: pl.LazyFrame) -> list[str]:
        """The columns that a snapshot does not have."""
        found = {*snapshot.collect_schema(), *(_DERIVED if self.of_products else ())}
        return [name for name in self.types if name not in found]

    def _may_lack(self, name: str, file_metadata: Mapping[str, str]) -> bool:
        is_of_a_view = self.of_products and SOURCE_TABLE in file_metadata and name != "uuid"
        is_only_seen = name == SEEN and name in self.only_seen
        return is_of_a_view or (is_only_seen and not self.of_products)


def fitted(frame: pl.LazyFrame, types: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    """A frame in columns of types that its values fit; one that it does not have is null."""
    found, columns = frame.collect_schema(), []
    for name, dtype in types.items():
        column = pl.col(name) if name in found else pl.lit(None).alias(name)
        known = found.get(name)
        if isinstance(known, pl.Datetime) and known.time_zone is None:
            column = column.dt.replace_time_zone("UTC")
        columns.append(column.cast(dtype))
    return frame.select(columns)


def _fitting(found: pl.DataType, wanted: pl.DataType) -> pl.DataType | None:
    """The type that has the values of two types; None if there is none."""
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
    """True if a column has numbers that are others in a type of numbers."""
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
"""What the history of products keeps."""
