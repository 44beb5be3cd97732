"""Own addresses beside what Octogen exported of them: coverage, and the products of each SKU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import polars as pl

from octogen_dagster.errors import OctogenBigQueryInputError
from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.printable import count

if TYPE_CHECKING:
    from octogen_dagster.frames.source import Metrics

COVERED, NOT_COVERED, PENDING, REJECTED = "covered", "not_covered", "pending", "rejected"
STATUSES = (COVERED, NOT_COVERED, PENDING, REJECTED)
OF_SERVICE = ("normalized_url", "rejected_code", "rejected_message")
"""The columns that the asset of a list adds to the user's table."""
EXPORTED = pl.Schema(
    {
        "normalized_url": pl.String(),
        "covered": pl.Boolean(),
        "exported_at": pl.Datetime("us", "UTC"),
    }
)
"""What is read of the view `url_coverage_v1`."""
NO_PRODUCTS = pl.Schema(
    {
        **{name: PRODUCT_SCHEMA[name] for name in ("uuid", "catalog_key", "product_url", "title")},
        "brand": pl.String(),
        **{name: PRODUCT_SCHEMA[name] for name in ("current_price", "original_price", "currency")},
        "in_stock": pl.Boolean(),
    }
)
"""Columns of products as long as there is no view that says which it has.

They are those that are documented, and those that a comparison of prices needs.
"""

_MATCHED = ("sku", "url", "matched_by")
_PRODUCT, _ADDRESS, _TEXT, _PAGE = (f"octogen_{each}" for each in ("product", "row", "url", "page"))


def coverage_of(own: pl.DataFrame, exported: pl.DataFrame | None) -> pl.DataFrame:
    """Return whether Octogen has products of each own address, a row for each row of the own table.

    An address that is not in the export was added after it, and is pending. Without an export all
    are.
    """
    if exported is None:
        exported = pl.DataFrame(schema=EXPORTED)
    known = exported.select(*EXPORTED).unique("normalized_url", keep="first")
    covered = pl.col("covered")
    status = (
        pl.when(pl.col("normalized_url").is_null())
        .then(pl.lit(REJECTED))
        .when(covered.is_null())
        .then(pl.lit(PENDING))
        .when(covered)
        .then(pl.lit(COVERED))
        .otherwise(pl.lit(NOT_COVERED))
    )
    return (
        own.select("sku", "url", pl.col("normalized_url").cast(pl.String))
        .join(known, on="normalized_url", how="left", maintain_order="left")
        .with_columns(status.alias("status"))
    )


def count_addresses(coverage: pl.DataFrame) -> dict[str, int]:
    """Count the different addresses of a coverage by status.

    An address of several SKUs counts once.
    """
    address = pl.coalesce("normalized_url", "url")
    counted = coverage.group_by("status").agg(address.n_unique()).rows()
    return dict.fromkeys(STATUSES, 0) | dict(counted)


def page_of(url: pl.Expr) -> pl.Expr:
    """The page of an address, as Octogen matches them: the host and the path.

    A product of Shopify has the same page in each of its collections.
    """
    rest = url.str.strip_chars().str.replace(r"^[A-Za-z][A-Za-z0-9+.-]*://", "")
    rest = rest.str.replace(r"[?#].*$", "").str.strip_chars_end("/")
    host, path = rest.str.extract(r"^([^/]*)"), rest.str.extract(r"^[^/]*(.*)$")
    of_shopify = path.str.replace(r"/collections/[^/]+(/products/[^/]+)$", "${1}")
    return host.str.to_lowercase() + of_shopify


class ProductJoin:
    """Joins products with the own addresses that Octogen covers, batch after batch.

    A product belongs to the addresses that are written as its own, and without any to those of its
    page. One of no address keeps its row, without a SKU.
    """

    def __init__(self, own: pl.DataFrame, coverage: pl.DataFrame) -> None:
        covered = coverage.filter(pl.col("status") == COVERED).select("normalized_url").unique()
        addresses = own.join(covered, on="normalized_url", how="semi").with_row_index(_ADDRESS)
        texts = addresses.unpivot(
            ["url", "normalized_url"], index=_ADDRESS, value_name=_TEXT
        ).select(_ADDRESS, _TEXT)
        self._by = {
            "url": texts.unique(),
            "page": texts.select(_ADDRESS, page_of(pl.col(_TEXT)).alias(_PAGE)).unique(),
        }
        self._own = addresses
        self._covered = len(covered)
        self._claimed = set[str]()
        self._products = 0
        self._matched = dict.fromkeys(("url", "page"), 0)

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Return the products of a batch with the rows of the own table that they belong to."""
        products = batch.with_row_index(_PRODUCT)
        url = pl.col("product_url")
        keys = products.select(_PRODUCT, url.alias(_TEXT), page_of(url).alias(_PAGE))
        by_url = keys.join(self._by["url"], on=_TEXT)
        others = keys.join(by_url, on=_PRODUCT, how="anti")
        by_page = others.join(self._by["page"], on=_PAGE)
        pairs = pl.concat(
            pairs.select(_PRODUCT, _ADDRESS, pl.lit(name).alias("matched_by"))
            for name, pairs in (("url", by_url), ("page", by_page))
        ).sort(_PRODUCT, _ADDRESS)
        own = self._own_columns(batch.columns)
        joined = products.join(pairs, on=_PRODUCT, how="left", maintain_order="left_right").join(
            own, on=_ADDRESS, how="left", maintain_order="left"
        )
        self._products += len(batch)
        for name, found in (("url", by_url), ("page", by_page)):
            self._matched[name] += found[_PRODUCT].n_unique()
        claimed = self._own.join(pairs, on=_ADDRESS, how="semi")["normalized_url"]
        self._claimed.update(claimed.to_list())
        first = [*_MATCHED, *(name for name in own.columns if name not in (*_MATCHED, _ADDRESS))]
        return joined.select(*first, *batch.columns)

    def problem(self) -> str | None:
        """Return why there must be more products, if Octogen covers addresses and there is none."""
        if self._products or not self._covered:
            return None
        return (
            f"url_coverage_v1 says that there are products of "
            f"{count(self._covered, 'address', 'addresses')}"
        )

    def metrics(self) -> Metrics:
        """Return how many products and addresses were matched."""
        unmatched = self._products - sum(self._matched.values())
        summary = (
            f"**{count(self._products, 'product')}** of {len(self._claimed):,} of "
            f"{count(self._covered, 'covered address', 'covered addresses')}"
        )
        if unmatched:
            summary += f", {unmatched:,} of no address"
        return {
            "summary": summary,
            "products": self._products,
            "matched_by_url": self._matched["url"],
            "matched_by_page": self._matched["page"],
            "unmatched_products": unmatched,
            "addresses_without_products": self._covered - len(self._claimed),
        }

    def _own_columns(self, of_products: Iterable[str]) -> pl.DataFrame:
        """The own table; a column that products have too is named `own_<name>`."""
        names = own_names(self._own.columns, of_products)
        return self._own.select(_ADDRESS, *(pl.col(each).alias(to) for each, to in names.items()))


def own_names(own: Iterable[str], of_products: Iterable[str]) -> Mapping[str, str]:
    """Name the columns of the own table beside those of products."""
    taken = set(of_products)
    if clash := taken.intersection(_MATCHED):
        raise OctogenBigQueryInputError(
            f"The view of products has a column {sorted(clash)[0]!r}, which the asset adds. Name "
            "the columns to read with columns=, without it."
        )
    kept = [name for name in own if name not in (*OF_SERVICE, _ADDRESS)]
    names = {name: f"own_{name}" if name in taken else name for name in kept}
    if clash := {"matched_by", *(to for name, to in names.items() if name != to)}.intersection(
        kept
    ):
        raise OctogenBigQueryInputError(
            f"The table of the list has a column {sorted(clash)[0]!r}, which the asset of its "
            "products adds. Rename it in the table."
        )
    return names


def no_products(own: pl.DataFrame) -> pl.DataFrame:
    """Return the products of a list that was not exported yet: none."""
    return ProductJoin(own, coverage_of(own, None))(pl.DataFrame(schema=NO_PRODUCTS))
