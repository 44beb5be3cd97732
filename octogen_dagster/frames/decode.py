"""PageDecoder: turns search pages into frames."""

from __future__ import annotations

import functools
from collections import Counter
from typing import TYPE_CHECKING

import polars as pl

from octogen_dagster.frames.schema import COLUMNS, PRODUCT_SCHEMA
from octogen_dagster.frames.timestamps import parse_timestamps, rfc3339_times
from octogen_dagster.frames.wire import wire_dtype

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from datetime import datetime

    from octogen_dagster.frames.wire import WirePage

_TEXT, _ARE_RIGHT = "text of updated_at", "updated_at is right"
_MAX_BYTES_AT_ONCE = 1_000_000
"""Decoding takes several times the size of the JSON."""


class PageDecoder:
    """Decodes the pages of one read.

    Args:
        columns: The snapshot columns to decode, in any order; `uuid` is always decoded.
        fetched_at: When the read began; the value of the column `fetched_at`.

    Attributes:
        unknown_fields: How often each field occurred that the schema does not know, by path.
    """

    def __init__(self, columns: Collection[str], fetched_at: datetime) -> None:
        self._columns = [name for name in PRODUCT_SCHEMA if name in {"uuid", *columns}]
        self._fetched_at = fetched_at
        self.unknown_fields: Counter[str] = Counter()

    def decode(self, pages: Sequence[WirePage], catalog: str | None) -> pl.DataFrame:
        """Decode the products of consecutive pages, in order, with repeated products.

        Args:
            pages: Consecutive pages of one catalog or search.
            catalog: The catalog that was read; used where the service does not name it.
        """
        if not pages:
            return pl.DataFrame(schema={name: PRODUCT_SCHEMA[name] for name in self._columns})
        for page in pages:
            self.unknown_fields.update(page.unknown)
        return pl.concat(
            [
                self._decode_run(run, catalog, images_are_text=images_are_text)
                for images_are_text, run in _runs(pages)
            ]
        )

    def _decode_run(
        self, run: list[bytes], catalog: str | None, *, images_are_text: bool
    ) -> pl.DataFrame:
        items, columns = self._expressions(catalog, images_are_text)
        bodies = pl.LazyFrame({"items": run}, schema={"items": pl.Binary})
        query = bodies.select(items).unnest("items").select(columns)
        frame = query.collect(engine="in-memory")  # so few rows take less CPU without streaming
        if "updated_at" in frame.columns:
            text, are_right = (frame.drop_in_place(name) for name in (_TEXT, _ARE_RIGHT))
            if not are_right.all():
                times = parse_timestamps(text.rename("updated_at"))
                frame.replace_column(frame.get_column_index("updated_at"), times)
        return frame

    @functools.cache  # noqa: B019 - a decoder lives as long as its read
    def _expressions(
        self, catalog: str | None, images_are_text: bool
    ) -> tuple[pl.Expr, list[pl.Expr]]:
        """Return the expressions from pages to items, and from the fields of items to columns."""
        dtype = wire_dtype(self._columns, images_are_text=images_are_text)
        items = pl.col("items").cast(pl.String).str.json_decode(dtype)
        columns = [
            self._expression(column.name, column.field, catalog, images_are_text)
            for column in COLUMNS
            if column.name in self._columns
        ]
        if "updated_at" in self._columns:
            text = pl.col("updatedAt")
            columns += [text.alias(_TEXT), rfc3339_times(text)[1].alias(_ARE_RIGHT)]
        return items.explode(empty_as_null=False), columns

    def _expression(
        self, name: str, field: str, catalog: str | None, images_are_text: bool
    ) -> pl.Expr:
        value = pl.col(field)
        dtype = PRODUCT_SCHEMA[name]
        if name == "fetched_at":
            value = pl.lit(self._fetched_at, dtype=dtype)
        elif name == "catalog_key":
            value = pl.coalesce(value, pl.lit(catalog, dtype=pl.String))
        elif isinstance(dtype, pl.Datetime):
            value, _ = rfc3339_times(value)
        elif isinstance(dtype, pl.Struct):
            value = value.struct.rename_fields([field.name for field in dtype.fields])
        elif isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct):
            value = value.list.eval(_image(dtype.inner, as_text=images_are_text))
        return value.alias(name)


def _runs(pages: Sequence[WirePage]) -> Iterator[tuple[bool, list[bytes]]]:
    """Split products where the form of their images changes, or where they are large together."""
    run: list[bytes] = []
    are_text: bool | None = None
    size = 0
    for page in pages:
        for items in page.items:
            size += len(items)
            changes = page.images_are_text is not None and are_text is (not page.images_are_text)
            if run and (changes or size > _MAX_BYTES_AT_ONCE):
                yield bool(are_text), run
                run, are_text, size = [], None, len(items)
            run.append(items)
            if page.images_are_text is not None:
                are_text = page.images_are_text
    yield bool(are_text), run


def _image(dtype: pl.Struct, *, as_text: bool) -> pl.Expr:
    names = [field.name for field in dtype.fields]
    if not as_text:
        return pl.element().struct.rename_fields(names)
    url, *others = dtype.fields
    return pl.struct(
        pl.element().alias(url.name),
        *(pl.lit(None, dtype=other.dtype).alias(other.name) for other in others),
    )
