"""The rows of a details snapshot, looked up or carried over. The lookups are in `lookups`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from octogen_dagster.frames.columns import (
    DETAIL_SCHEMA,
    FOUND,
    IDENTITY,
    LISTED,
    MISMATCH,
    PRODUCT_SCHEMA,
)
from octogen_dagster.frames.decode import with_details

if TYPE_CHECKING:
    from collections.abc import Iterator

    from octogen_dagster.frames.details.failure_limit import FailureLimit
    from octogen_dagster.frames.details.lookups import Lookup, LookupReader, Lookups

PRODUCTS_PER_BATCH = 250
_BATCHES_PER_CHUNK = 20
ROW_GROUP_SIZE = 2_000
"""Rows in a row group of a details file. A details row is as large as ten product rows."""

_COMPARED = [*IDENTITY, "listed"]
_KEY = pl.struct(_COMPARED).hash().alias("key")
_OF_LOOKUPS = {
    **{name: DETAIL_SCHEMA[name] for name in ("status", "error", "looked_up_at")},
    "lookup": pl.Binary(),
}


class ListedProducts:
    """The products of a snapshot that are to be looked up.

    Args:
        snapshot: A product snapshot with the columns `IDENTITY` and `LISTED`; it is executed twice.

    Attributes:
        count: The number of products.

    Raises:
        ValueError: A column is missing.
    """

    def __init__(self, snapshot: pl.LazyFrame) -> None:
        columns = snapshot.collect_schema()
        if missing := [name for name in (*IDENTITY, *LISTED) if name not in columns]:
            raise ValueError(
                f"The products have no column {', '.join(missing)}: give a product snapshot, with "
                "the columns of octogen_dagster.PRODUCT_SCHEMA."
            )
        typed = {name: pl.col(name).cast(PRODUCT_SCHEMA[name]) for name in (*IDENTITY, *LISTED)}
        typed["is_active"] = _known(typed["is_active"])
        address = typed["product_url"].hash()
        addresses = snapshot.select(address).collect().to_series()
        repeated = addresses.filter(addresses.is_duplicated()).unique()
        self.count = len(addresses)
        self._frame = snapshot.select(
            *(typed[name] for name in IDENTITY),
            pl.struct(typed[name] for name in LISTED).alias("listed"),
            address.is_in(repeated.implode()).alias("shares_address"),
        )

    def __iter__(self) -> Iterator[pl.DataFrame]:
        """Yield frames of some thousand products: `IDENTITY`, `listed` and `shares_address`."""
        return iter(
            self._frame.collect_batches(
                chunk_size=_BATCHES_PER_CHUNK * PRODUCTS_PER_BATCH,
                maintain_order=True,
                lazy=True,
            )
        )


class ReusableRows:
    """Rows of the previous details snapshot that can be reused while the listing is unchanged.

    Only a few bytes of each row are kept in memory.

    Args:
        previous: A details snapshot; the schema is `DETAIL_SCHEMA`.
    """

    def __init__(self, previous: pl.LazyFrame) -> None:
        is_active = _known(pl.field("is_active"))
        previous = previous.with_columns(pl.col("listed").struct.with_fields(is_active))
        self._previous = previous
        rows = previous.select(_KEY, "status").with_row_index("place")
        # A product that was gone may be back, for example when a grant was renewed.
        found = rows.filter(pl.col("status") == FOUND).collect()
        self._places = found.select("key", "place").unique("key", keep="first")

    def of(self, products: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of products, and perhaps a few others, in any order."""
        places = self._places.join(products.select(_KEY), on="key", how="semi").sort("place")
        blocks = places.group_by(pl.col("place") // ROW_GROUP_SIZE, maintain_order=True)
        rows = [self._block(number)[some["place"] % ROW_GROUP_SIZE] for (number,), some in blocks]
        return pl.concat([DETAIL_SCHEMA.to_frame(), *rows])

    def _block(self, number: Any) -> pl.DataFrame:
        return self._previous.slice(number * ROW_GROUP_SIZE, ROW_GROUP_SIZE).collect()


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive products whose lookups have begun.

    Attributes:
        carried: The rows that are carried over; the column `row` is their place in the batch.
        fresh: The other products, with the same column `row`.
        lookups: The lookups of `fresh` that no earlier batch has requested.
    """

    carried: pl.DataFrame
    fresh: pl.DataFrame
    lookups: Lookups


class DetailRows:
    """Makes the rows of a details snapshot batch by batch.

    Args:
        products: The products to look up.
        reusable: The rows that may be carried over.
        reader: Makes the lookups.
        limit: The failure limit of the lookups, which is reduced by those that are not needed.

    Attributes:
        unknown_fields: How often each field occurred that the schema does not know, by path.
    """

    def __init__(
        self,
        products: ListedProducts,
        reusable: ReusableRows,
        reader: LookupReader,
        limit: FailureLimit,
    ) -> None:
        self._products = products
        self._reusable = reusable
        self._reader = reader
        self._limit = limit
        self._requested: set[str] = set()
        self._shared: dict[str, Lookup] = {}
        self.unknown_fields: Counter[str] = Counter()

    def begin(self) -> Iterator[Batch]:
        """Yield the batches in order; the lookups of a batch are queued when it is yielded."""
        for products in self._products:
            reusable = self._reusable.of(products)
            for some in products.iter_slices(PRODUCTS_PER_BATCH):
                batch = some.with_row_index("row")
                carried = batch.join(reusable, on=_COMPARED, nulls_equal=True)
                fresh = batch.join(carried, on="row", how="anti", maintain_order="left")
                urls = self._unrequested(fresh)
                self._limit.reduce_total(len(fresh) - len(urls))
                yield Batch(carried, fresh, self._reader.begin(urls))

    def finish(self, batch: Batch) -> pl.DataFrame:
        """Return the rows of a batch whose lookups are over. Finish the batches in order."""
        lookups = batch.lookups.results
        self._shared.update((url, lookups[url]) for url in lookups.keys() & self._requested)
        looked_up = [
            self._lookup_values(uuid, lookups.get(url) or self._shared[url])
            for uuid, url in zip(batch.fresh.get_column("uuid"), _urls(batch.fresh), strict=True)
        ]
        values = pl.DataFrame(looked_up, schema=_OF_LOOKUPS, orient="row")
        fresh = with_details(batch.fresh.hstack(values))
        columns = ["row", *DETAIL_SCHEMA]
        both = pl.concat([batch.carried.select(columns), fresh.select(columns)])
        return both.sort("row").drop("row")

    def _unrequested(self, fresh: pl.DataFrame) -> list[str]:
        """Return the addresses that no batch has requested yet."""
        urls: dict[str, None] = {}
        for url, shared in zip(_urls(fresh), fresh.get_column("shares_address"), strict=True):
            if url not in self._requested:
                urls[url] = None
            if shared:
                self._requested.add(url)
        return list(urls)

    def _lookup_values(self, uuid: str, lookup: Lookup) -> tuple[Any, ...]:
        """Return the values of `_OF_LOOKUPS` for the product with a uuid."""
        status, error, response = lookup.status, lookup.error, lookup.response
        if response is None:
            return status, error, lookup.at, None
        if status == FOUND and response.uuid != uuid:
            status, error = MISMATCH, _mismatch(response.uuid)
        self.unknown_fields.update(response.unknown)
        return status, error, lookup.at, response.content


def _known(is_active: pl.Expr) -> pl.Expr:
    """Read null as true.

    Snapshots of earlier versions have null where the service did not send it, which means true. The
    products are not looked up again for that.
    """
    return is_active.fill_null(value=True)


def _mismatch(uuid: str | None) -> str:
    if uuid is None:
        return "The response has no uuid, so it may be of another product."
    return f"The address leads to another product, {uuid!r}."


def _urls(products: pl.DataFrame) -> pl.Series:
    return products.get_column("product_url").fill_null("")
