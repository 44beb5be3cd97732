"""Own addresses beside what Octogen exported of them: coverage, and the products of each SKU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

import polars as pl

from octogen_dagster.errors import OctogenBigQueryInputError
from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.frames.urls import normalized_url
from octogen_dagster.printable import count

if TYPE_CHECKING:
    from octogen_dagster.frames.source import Metrics

COVERED, NOT_COVERED, PENDING, REJECTED = "covered", "not_covered", "pending", "rejected"
STATUSES = (COVERED, NOT_COVERED, PENDING, REJECTED)
OF_SERVICE = ("normalized_url", "rejected_code", "rejected_message")
"""The columns that the asset of a list adds to the user's table."""
EXPORTED = pl.Schema(
    {
        "url": pl.String(),
        "normalized_url": pl.String(),
        "covered": pl.Boolean(),
        "exported_at": pl.Datetime("us", "UTC"),
    }
)
"""The columns that are read of the view `url_coverage_v1`."""
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
_FORM, _PARAMETERS, _DOUBT = (f"octogen_{each}" for each in ("form", "parameters", "doubt"))


def coverage_of(own: pl.DataFrame, exported: pl.DataFrame | None) -> pl.DataFrame:
    """Return whether Octogen has products of each own address, a row for each row of the own table.

    An address that is not in the export was added after it, and is pending. Without an export all
    are. Octogen may have normalized its lists anew since the own table was sent, so an address is
    also known as it was submitted.
    """
    if exported is None:
        exported = pl.DataFrame(schema=EXPORTED)
    own = own.select("sku", "url", pl.col("normalized_url").cast(pl.String))
    sent = own.select("normalized_url", pl.col("url").cast(pl.String).str.strip_chars())
    known = pl.concat(
        each.select("normalized_url", "covered", "exported_at")
        for each in (exported, sent.join(exported.drop("normalized_url"), on="url"))
    ).unique("normalized_url", keep="first", maintain_order=True)
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
    return own.join(known, on="normalized_url", how="left", maintain_order="left").with_columns(
        status.alias("status")
    )


def count_addresses(coverage: pl.DataFrame) -> dict[str, int]:
    """Count the different addresses of a coverage by status.

    An address of several SKUs counts once.
    """
    address = pl.coalesce("normalized_url", "url")
    counted = coverage.group_by("status").agg(address.n_unique()).rows()
    return dict.fromkeys(STATUSES, 0) | dict(counted)


def page_of(url: pl.Expr) -> pl.Expr:
    """The page of a normalized address: without its parameters.

    A product of Shopify has the same page in each of its collections.
    """
    page = url.str.replace(r"\?.*$", "")
    return page.str.replace(r"/collections/[^/]+(/products/[^/]+)$", "${1}")


def _told_apart(url: pl.Expr) -> list[pl.Expr]:
    """The form of an address that all of its spellings share, its page and its parameters."""
    form = normalized_url(url)
    parameters = form.str.extract(r"\?(.*)$").fill_null("").str.split("&")
    return [form.alias(_FORM), page_of(form).alias(_PAGE), parameters.alias(_PARAMETERS)]


def _nearest(products: pl.DataFrame, addresses: pl.DataFrame, of: str) -> pl.DataFrame:
    """The pairs of a page that have most parameters in common, of each product or each address.

    A pair is in doubt if both have parameters and none is the same.
    """
    pairs = products.join(addresses, on=_PAGE, suffix="_of_address")
    shared = pl.col(_PARAMETERS).list.set_intersection(f"{_PARAMETERS}_of_address").list.len()
    # An address without parameters has one that is empty, which two such addresses share.
    have_none = pl.concat_list(_PARAMETERS, f"{_PARAMETERS}_of_address").list.contains("")
    nearest = pairs.filter(shared == shared.max().over(of))
    return nearest.with_columns(((shared == 0) & ~have_none).alias(_DOUBT))


def _sure(pairs: pl.DataFrame) -> pl.DataFrame:
    return pairs.filter(~pl.col(_DOUBT)).select(_ADDRESS)


def _ties(pairs: pl.DataFrame, of: str, page: str) -> int:
    """The number of products, or addresses, that have several pages which are equally near."""
    return len(pairs.group_by(of).agg(pl.col(page).n_unique()).filter(pl.col(page) > 1))


class ProductJoin:
    """Joins products with the own addresses that Octogen covers, batch after batch.

    A product belongs to the addresses that are written as its own, and without any to those of its
    page that share most parameters with it. One of no address keeps its row, without a SKU. In the
    end, an address without any product gets those of its page that share most, whosever they are:
    Octogen says that it has some.
    """

    def __init__(self, own: pl.DataFrame, coverage: pl.DataFrame) -> None:
        covered = coverage.filter(pl.col("status") == COVERED).select("normalized_url").unique()
        own = own.with_columns(pl.col("url", "normalized_url").cast(pl.String))
        addresses = own.join(covered, on="normalized_url", how="semi").with_row_index(_ADDRESS)
        # An address is known as it was sent, and as Octogen writes it.
        texts = addresses.with_columns(
            pl.concat_list("url", "normalized_url").list.unique().alias(_TEXT)
        ).explode(_TEXT)
        self._texts = texts.select(
            _ADDRESS, "normalized_url", _TEXT, *_told_apart(pl.col(_TEXT))
        ).unique(maintain_order=True)
        self._own = addresses
        self._covered = len(covered)
        # The addresses that have no product so far, or none without doubt, and the products on
        # the pages of the first.
        self._without = self._unsure = self._texts
        self._kept: pl.DataFrame | None = None
        self._products = self._tied = 0
        self._matched = dict.fromkeys(("url", "page"), 0)

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Return the products of a batch with the rows of the own table that they belong to."""
        if "product_url" not in batch.columns:
            raise OctogenBigQueryInputError(
                "The view of products has no column 'product_url', by which products are joined "
                "with addresses. Report it to Octogen, or build the assets with in_place=True."
            )
        url = pl.col("product_url")
        products = batch.with_row_index(_PRODUCT).with_columns(_told_apart(url))
        keys = products.select(_PRODUCT, _FORM, _PAGE, _PARAMETERS, url.alias(_TEXT))
        found = []
        for on in (_TEXT, _FORM):
            found.append(keys.join(self._texts, on=on))
            keys = keys.join(found[-1], on=_PRODUCT, how="anti")
        near = _nearest(keys, self._texts, _PRODUCT)
        self._tied += _ties(near, _PRODUCT, "normalized_url")
        self._products += len(batch)
        pairs = pl.concat(
            each.select(_PRODUCT, _ADDRESS, pl.lit(name).alias("matched_by"))
            for each, name in zip([*found, near], ("url", "url", "page"), strict=True)
        ).unique()
        for name in self._matched:
            self._matched[name] += pairs.filter(matched_by=name)[_PRODUCT].n_unique()
        self._take(pairs, pl.concat(each.select(_ADDRESS) for each in (*found, _sure(near))))
        kept = products.drop(_PRODUCT)
        kept = kept if self._kept is None else pl.concat([self._kept, kept])
        self._kept = kept.join(self._without, on=_PAGE, how="semi", maintain_order="left")
        return self._joined(products.drop(_FORM, _PAGE, _PARAMETERS), pairs, "left")

    def rest(self) -> pl.DataFrame | None:
        """Return the products of the addresses that none was found for, from pages of others."""
        if self._kept is None or self._kept.is_empty():
            return None
        products, self._kept = self._kept.with_row_index(_PRODUCT), None
        near = _nearest(products, self._without, _ADDRESS)
        self._tied += _ties(near, "normalized_url", _FORM)
        pairs = near.select(_PRODUCT, _ADDRESS, pl.lit("page").alias("matched_by")).unique()
        self._take(pairs, _sure(near))
        return self._joined(products.drop(_FORM, _PAGE, _PARAMETERS), pairs, "inner")

    def _take(self, pairs: pl.DataFrame, sure: pl.DataFrame) -> None:
        """Note the addresses of pairs as those of which there is a product."""

        def lacking(left: pl.DataFrame, of: pl.DataFrame) -> pl.DataFrame:
            taken = self._own.join(of, on=_ADDRESS, how="semi").select("normalized_url")
            return left.join(taken, on="normalized_url", how="anti")

        self._without = lacking(self._without, pairs)
        self._unsure = lacking(self._unsure, sure)

    def _joined(
        self, products: pl.DataFrame, pairs: pl.DataFrame, how: Literal["left", "inner"]
    ) -> pl.DataFrame:
        of_products = [name for name in products.columns if name != _PRODUCT]
        own = self._own_columns(of_products)
        first = [*_MATCHED, *(name for name in own.columns if name not in (*_MATCHED, _ADDRESS))]
        ordered = pairs.sort(_PRODUCT, _ADDRESS)
        return (
            products.join(ordered, on=_PRODUCT, how=how, maintain_order="left_right")
            .join(own, on=_ADDRESS, how="left", maintain_order="left")
            .select(*first, *of_products)
        )

    def problem(self) -> str | None:
        """Return why there must be more products, if Octogen covers addresses and there is none."""
        if self._products or not self._covered:
            return None
        return (
            f"url_coverage_v1 says that there are products of "
            f"{count(self._covered, 'address', 'addresses')}"
        )

    @property
    def matched_fraction(self) -> float | None:
        """The share of own covered addresses that have a product without doubt; None of none."""
        of, unsure = (each["normalized_url"].n_unique() for each in (self._own, self._unsure))
        return (of - unsure) / of if of else None

    def metrics(self) -> Metrics:
        """Return how many products and addresses were matched."""
        unmatched = self._products - sum(self._matched.values())
        of, without, unsure = (
            each["normalized_url"].n_unique() for each in (self._own, self._without, self._unsure)
        )
        summary = (
            f"**{count(self._products, 'product')}** of {of - without:,} of "
            f"{count(of, 'covered address', 'covered addresses')}"
        )
        if unsure > without:
            summary += f", {unsure - without:,} in doubt"
        if unmatched:
            summary += f", {unmatched:,} of no address"
        if self._tied:
            summary += f", {count(self._tied, 'tie')}"
        return {
            "summary": summary,
            "products": self._products,
            "matched_by_url": self._matched["url"],
            "matched_by_page": self._matched["page"],
            "unmatched_products": unmatched,
            "addresses_without_products": without,
            "addresses_in_doubt": unsure - without,
            "ties": self._tied,
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
