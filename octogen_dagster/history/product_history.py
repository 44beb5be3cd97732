"""The past of one product: its rows of a history, its events and a line of its prices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, NamedTuple

import polars as pl

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.history.files import history_files, scan_history
from octogen_dagster.history.observed import read_observed
from octogen_dagster.history.table import HISTORY_SCHEMA, price_drops
from octogen_dagster.printable import block
from octogen_dagster.storage.store import Store

_NO_PRICE = "·"
_FLOATS = pl.col(pl.Float64)

Row = Mapping[str, Any]
"""A row of a history by its columns."""


class ProductPast(NamedTuple):
    """The rows of a product in one catalog, the oldest first.

    `until` is the time of the catalog's last snapshot, up to which a current row is known to hold.
    """

    rows: Sequence[Row]
    until: datetime

    @property
    def priced(self) -> list[Row]:
        """The rows with a price in the currency of the last price."""
        priced = [row for row in self.rows if row["current_price"] is not None]
        return [row for row in priced if row["currency"] == priced[-1]["currency"]]

    def events(self) -> Iterator[tuple[datetime, str, Row | None]]:
        """The events of the product: time, kind, and the row that began, None if it was gone."""
        for row, following in zip(self.rows, [*self.rows[1:], None], strict=True):
            kinds = f": {', '.join(row['changed'])}" if row["changed"] else ""
            yield row["valid_from"], f"{row['change']}{kinds}", row
            end = row["valid_to"]
            if end and (following is None or following["valid_from"] != end):
                yield end, "disappeared", None

    def price_line(self, width: int) -> str:
        """Draw the prices up to `until` as characters, each of which stands for a span of time.

        It is the lowest price of the span, `·` if that is not known, and a space if the product
        was not there.
        """
        priced = self.priced
        prices = [row["current_price"] for row in priced]
        lowest, height = min(prices), max(prices) - min(prices)
        start = self.rows[0]["valid_from"]
        span = (self.until - start) / max(width - 1, 1)
        line = ""
        for begin in (start + number * span for number in range(width)):
            if drawn := [row["current_price"] for row in _held(priced, begin, span)]:
                share = (min(drawn) - lowest) / height if height else 0.5
                line += block(share)
            else:
                line += _NO_PRICE if _held(self.rows, begin, span) else " "
        return line


def _held(rows: Sequence[Row], begin: datetime, span: timedelta) -> list[Row]:
    """The rows that held at some time from `begin` to before the end of a span."""
    return [
        row
        for row in rows
        if (row["valid_from"] <= begin or row["valid_from"] < begin + span)
        and (row["is_current"] or row["valid_to"] > begin)
    ]


def find_product(
    base_dir: str,
    product: str,
    *,
    asset: str,
    catalog: str | None = None,
    as_of: datetime | None = None,
) -> list[ProductPast]:
    """Find a product by its uuid, or a product_url that it had: its past in each catalog."""
    column = "product_url" if "://" in product else "uuid"
    is_product = pl.col(column) == product
    history = _History.opened(base_dir, asset, catalog, is_product)
    if found := history.pasts(is_product, as_of):
        return found
    if as_of is None or not (pasts := history.pasts(is_product)):
        raise OctogenSnapshotError(
            f"No product with the {column} {product!r} is in {history.name}. Give its uuid or its "
            "product_url as the snapshots have it."
        )
    known = [row for past in pasts for row in past.rows]
    end = known[-1]["valid_to"]
    raise OctogenSnapshotError(
        f"The product {product!r} was not there at {as_of}. In {history.name} it was first seen at "
        f"{known[0]['valid_from']}{f' and gone at {end}' if end else ''}. Ask for another "
        "time, or for its whole past."
    )


def find_by_title(
    base_dir: str, title: str, *, asset: str, catalog: str | None = None
) -> list[ProductPast]:
    """Find the products whose title has, or had, a text in it, in any case: the past of each."""
    has_title = pl.col("title").str.to_lowercase().str.contains(title.lower(), literal=True)
    history = _History.opened(base_dir, asset, catalog, has_title)
    if pasts := history.pasts(has_title):
        return pasts
    raise OctogenSnapshotError(
        f"No product in {history.name} has {title!r} in its title. Give a part of the title."
    )


def find_drops(
    base_dir: str, *, asset: str, catalog: str | None = None, number: int
) -> pl.DataFrame:
    """Find the products whose price fell by the largest share in the last snapshot of a catalog."""
    store = Store(base_dir)
    files = history_files(store, asset, None if catalog is None else [catalog], of_products=True)
    drops = []
    for key in files.values():
        last = max(read_observed(store.metadata(key)), default=None)
        if last is not None:
            drops.append(price_drops(store.scan(key), last, number))
    found = pl.concat(drops) if drops else price_drops(pl.LazyFrame(schema=HISTORY_SCHEMA), None, 1)
    if catalog is not None:  # a history of many catalogs is one file
        found = found.filter(pl.col("catalog_key").str.to_lowercase() == catalog.lower())
    return found.sort("change_percent").head(number)


class _History(NamedTuple):
    """The files of a history that may have a product."""

    store: Store
    asset: str
    catalog: str | None
    files: Mapping[str, str]

    @classmethod
    def opened(cls, base_dir: str, asset: str, catalog: str | None, wanted: pl.Expr) -> _History:
        store = Store(base_dir)
        files = history_files(
            store, asset, None if catalog is None else [catalog], of_products=True
        )
        if store.is_local and len(files) > 1:
            files = _with_product(store, files, wanted)
        return cls(store, asset, catalog, files)

    @property
    def name(self) -> str:
        of = f", catalog {self.catalog!r}" if self.catalog else ""
        return f"the history {self.asset} in {self.store.base_dir}{of}"

    def pasts(self, wanted: pl.Expr, as_of: datetime | None = None) -> list[ProductPast]:
        """Return the pasts of the products of which a row is wanted, at a time if it is given."""
        found = {(row["catalog_key"], row["uuid"]) for row in self._rows(wanted)}
        rows = self._rows(pl.col("uuid").is_in(sorted({uuid for _, uuid in found})), as_of)
        groups = groupby(rows, key=lambda row: (row["catalog_key"], row["uuid"]))
        return [
            ProductPast(list(group), self._until(product[0]))
            for product, group in groups
            if product in found
        ]

    def _rows(self, wanted: pl.Expr, as_of: datetime | None = None) -> list[dict[str, Any]]:
        """Return the rows of products, each product's together and in the order of time."""
        if not self.files:
            return []
        catalogs = [self.catalog] if self.catalog else [key for key in self.files if key] or None
        history = scan_history(
            self.store.base_dir, asset=self.asset, catalogs=catalogs, as_of=as_of
        )
        found = history.filter(wanted).collect(engine="streaming")
        # Prices of an asset of one's own may be NaN, which neither a line nor JSON can say.
        found = found.with_columns(pl.when(_FLOATS.is_finite()).then(_FLOATS))
        return found.sort("catalog_key", "uuid", "valid_from").to_dicts()

    def _until(self, catalog: str | None) -> datetime:
        """The time of the last snapshot of a catalog.

        In an asset of one's own a row may name no catalog, or another one than its file.
        """
        by_catalog = {key.lower(): file for key, file in self.files.items()}
        file = by_catalog.get((catalog or "").lower())
        observed = [
            observation
            for stored in ([file] if file else self.files.values())
            for observation in read_observed(self.store.metadata(stored)).items()
        ]
        covering = [time for time, each in observed if each.covers(catalog)]
        return max(covering or [time for time, _ in observed])


def _with_product(store: Store, files: Mapping[str, str], is_product: pl.Expr) -> dict[str, str]:
    """The files that have a product, by one query: a query of each takes a millisecond a file."""
    paths = {store.uri(key): key for key in files.values()}
    frame = pl.scan_parquet(list(paths), glob=False, include_file_paths="path")
    try:
        found = frame.filter(is_product).select("path").unique().collect(engine="streaming")
    except pl.exceptions.PolarsError:
        for key in files.values():
            store.scan(key)  # its error names the file that is damaged
        raise
    names = {paths[path] for path in found.get_column("path")}
    return {catalog: key for catalog, key in files.items() if key in names}
