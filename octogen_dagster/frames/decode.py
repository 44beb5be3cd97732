"""PageDecoder: turns search pages into frames.

Pages that pass the strict check of `wire` are decoded by Polars, all others by the pydantic models.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections import Counter
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import BaseModel

from octogen_dagster.api.models import MerchantProductListPage
from octogen_dagster.api.responses import parsed
from octogen_dagster.frames.schema import COLUMNS, PRODUCT_SCHEMA
from octogen_dagster.frames.wire import wire_dtype

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from octogen_dagster.frames.wire import WirePage

_FIRST_MICROSECOND, _LAST_MICROSECOND = (
    (time - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    for time in (datetime.min, datetime.max)
)


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
        self._images_are_text = False
        self.unknown_fields: Counter[str] = Counter()

    def decode(self, pages: Sequence[WirePage], catalog: str | None, subject: str) -> pl.DataFrame:
        """Decode the products of consecutive pages, in order, with repeated products.

        Args:
            pages: Consecutive pages of one catalog or search.
            catalog: The catalog that was read; used where the service does not name it.
            subject: What was read; begins error messages.

        Raises:
            OctogenResponseError: A product cannot be decoded; the message names it and the field.
        """
        if not pages:
            return self._decode_models([], catalog)
        for page in pages:
            self.unknown_fields.update(page.unknown)
        runs = itertools.groupby(pages, key=self._kind)
        return pl.concat(
            [self._decode_run(kind, list(run), catalog, subject) for kind, run in runs]
        )

    def _kind(self, page: WirePage) -> str:
        """Return how to decode a page: "models", or for Polars its images, "text" or "objects"."""
        if page.model is not None:
            return "models"
        if page.images_are_text is not None:
            self._images_are_text = page.images_are_text
        return "text" if self._images_are_text else "objects"

    def _decode_run(
        self, kind: str, pages: Sequence[WirePage], catalog: str | None, subject: str
    ) -> pl.DataFrame:
        if kind != "models":
            # Polars refuses timestamps without a zone and images of both kinds on one page.
            with contextlib.suppress(pl.exceptions.PolarsError):
                frame = self._decode_fast(pages, catalog, images_are_text=kind == "text")
                if _agrees_with_models(frame, pages):
                    return frame
            for page in pages:
                page.model = parsed(MerchantProductListPage, page.response, subject)
        return self._decode_models([page.model for page in pages if page.model], catalog)

    def _decode_fast(
        self, pages: Sequence[WirePage], catalog: str | None, *, images_are_text: bool
    ) -> pl.DataFrame:
        items, columns = self._expressions(catalog, images_are_text)
        contents = [page.response.content for page in pages]
        pages_frame = pl.LazyFrame({"page": contents}, schema={"page": pl.Binary})
        return pages_frame.select(items).unnest("items").select(columns).collect()

    @functools.cache  # noqa: B019 - a decoder lives as long as its read
    def _expressions(
        self, catalog: str | None, images_are_text: bool
    ) -> tuple[pl.Expr, list[pl.Expr]]:
        """Return the expressions from pages to items, and from the fields of items to columns."""
        dtype = wire_dtype(self._columns, images_are_text=images_are_text)
        page = pl.col("page").cast(pl.String).str.json_decode(dtype)
        return page.struct.field("items").explode(empty_as_null=False), [
            self._expression(column.name, column.field, catalog, images_are_text)
            for column in COLUMNS
            if column.name in self._columns
        ]

    def _decode_models(
        self, pages: Sequence[MerchantProductListPage], catalog: str | None
    ) -> pl.DataFrame:
        rows = [
            {
                **_plain(item),
                "catalog_key": catalog if item.catalog_key is None else item.catalog_key,
                "fetched_at": self._fetched_at,
            }
            for page in pages
            for item in page.items
        ]
        return pl.DataFrame(rows, schema=PRODUCT_SCHEMA).select(self._columns)

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
            value = value.str.to_datetime("%+", time_unit="us", time_zone="UTC")
        elif isinstance(dtype, pl.Struct):
            value = value.struct.rename_fields([field.name for field in dtype.fields])
        elif isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct):
            value = value.list.eval(_image(dtype.inner, as_text=images_are_text))
        return value.alias(name)


def _agrees_with_models(frame: pl.DataFrame, pages: Sequence[WirePage]) -> bool:
    """False if the models may read the pages differently.

    Of two fields of the same name Polars takes the first; all other decoders take the last. It
    decodes times before the year 1 and after 9999, for which Python has no datetime.
    """
    if frame.get_column("uuid").to_list() != [uuid for page in pages for uuid in page.uuids]:
        return False
    if "updated_at" not in frame.columns:
        return True
    times = frame.get_column("updated_at").to_physical()
    first: Any = times.min()
    last: Any = times.max()
    return first is None or bool(first >= _FIRST_MICROSECOND and last <= _LAST_MICROSECOND)


def _image(dtype: pl.Struct, *, as_text: bool) -> pl.Expr:
    names = [field.name for field in dtype.fields]
    if not as_text:
        return pl.element().struct.rename_fields(names)
    url, *others = dtype.fields
    return pl.struct(
        pl.element().alias(url.name),
        *(pl.lit(None, dtype=other.dtype).alias(other.name) for other in others),
    )


def _plain(model: BaseModel) -> dict[str, Any]:
    """Return the fields of a model that the schema knows."""
    return {name: _plain_value(getattr(model, name)) for name in type(model).model_fields}


def _plain_value(value: Any) -> Any:
    match value:
        case BaseModel():
            return _plain(value)
        case list():
            return [_plain_value(entry) for entry in value]
        case _:
            return value
