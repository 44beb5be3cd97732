"""Matches the URLs in a table with the products in a URL list's export."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import polars as pl

from octogen_dagster.errors import OctogenBigQueryInputError
from octogen_dagster.frames.kinds import TableKind
from octogen_dagster.frames.urls import normalized_url
from octogen_dagster.printable import count
from octogen_dagster.url_lists.list_asset import ADDED_COLUMNS

COVERED, NOT_COVERED, PENDING, REJECTED = "covered", "not_covered", "pending", "rejected"
STATUSES = (COVERED, NOT_COVERED, PENDING, REJECTED)
EXPORTED = pl.Schema(
    {
        "url": pl.String(),
        "normalized_url": pl.String(),
        "covered": pl.Boolean(),
        "exported_at": pl.Datetime("us", "UTC"),
    }
)
"""The required columns in the view `url_coverage_v1`."""
MATCHES_DESCRIPTIONS = {
    "sku": "The SKU in your table; null for a product without a URL in the list.",
    "url": "The competitor's product page in your table.",
    "status": "`covered`, `not_covered`, `pending` (added after the latest export) or `rejected`.",
    "matched_by": "`url` if the URLs match; `page` if only their parameters or Shopify collections "
    "differ; null if there is no match.",
    "product_url": "The product's URL in Octogen's catalog.",
}
_EXPORTED_AT = "exported_at"
MATCHES_KIND = TableKind(descriptions=MATCHES_DESCRIPTIONS, volatile=(_EXPORTED_AT,))
"""The table kind for matches.

Only the columns that every matches table contains have a description.
"""

_FIRST = ("sku", "url", "status", "matched_by")
_PRODUCT, _ROW, _URL, _PAGE = (f"octogen_{each}" for each in ("product", "row", "url", "page"))
_FORM, _PARAMETERS, _UNCERTAIN = (f"octogen_{each}" for each in ("form", "parameters", "uncertain"))
_STATUS = "octogen_status"  # the user's table might have a column `status`


class Matches(NamedTuple):
    """The result of `url_matches`.

    Attributes:
        rows: One row for each match, each unmatched row and each unmatched product.
        url_counts: The number of distinct URLs by status.
        figures: Counts of products, and of covered URLs without a reliable match.
    """

    rows: pl.LazyFrame
    url_counts: Mapping[str, int]
    figures: Mapping[str, int]

    @property
    def summary(self) -> str:
        """A Markdown summary of the matches."""
        covered, figures = self.url_counts[COVERED], self.figures
        matched = covered - figures["addresses_without_products"]
        total = count(sum(self.url_counts.values()), "URL")
        parts = [
            f"**{covered:,} of {total} covered**",
            *(
                f"{self.url_counts[status]:,} {status.replace('_', ' ')}"
                for status in STATUSES[1:]
                if self.url_counts[status]
            ),
        ]
        products = [
            f"**{count(figures['products'], 'product')}** for {matched:,} of "
            f"{count(covered, 'covered URL')}"
        ]
        for name, label in (
            ("addresses_in_doubt", "uncertain"),
            ("unmatched_products", "unmatched"),
            ("ties", "tied"),
        ):
            if figures[name]:
                products.append(f"{figures[name]:,} {label}")
        return f"{', '.join(parts)}; {', '.join(products)}"

    @property
    def matched_fraction(self) -> float | None:
        """The share of covered URLs that have a reliable match, or None if no URL is covered."""
        covered, figures = self.url_counts[COVERED], self.figures
        unsure = figures["addresses_without_products"] + figures["addresses_in_doubt"]
        return (covered - unsure) / covered if covered else None


def url_matches(own: pl.DataFrame, coverage: pl.DataFrame, offers: pl.LazyFrame) -> Matches:
    """Match the rows in a URL list's table with the exported products.

    A product matches the covered URLs that equal its `product_url`, either as sent or as normalized
    by Octogen. If there are no such URLs, the product matches the URLs for its page that share the
    most parameters. If a covered URL still has no product, it matches the products with the same
    page that share the most parameters with it, even if these products match other URLs, because
    Octogen reports that a covered URL has products.
    """
    offer_columns = offers.collect_schema().names()
    names = _column_names(own.columns, offer_columns)
    own = own.with_columns(pl.col("url", "normalized_url").cast(pl.String)).with_row_index(_ROW)
    own = own.with_columns(_statuses(own, coverage))
    pairs, figures = _pairs(own.filter(pl.col(_STATUS) == COVERED), offers)
    url = pl.coalesce("normalized_url", "url")
    url_counts = dict(own.group_by(_STATUS).agg(url.n_unique()).rows())

    columns = [pl.col(each).alias(to) for each, to in names.items()]
    table = own.lazy().select(_ROW, pl.col(_STATUS).alias("status"), *columns)
    lazy_pairs = pairs.lazy()
    joined = (
        offers.with_row_index(_PRODUCT)
        .join(lazy_pairs, on=_PRODUCT, how="left", maintain_order="left_right")
        .join(table, on=_ROW, how="left", maintain_order="left")
    )
    unmatched = table.join(lazy_pairs, on=_ROW, how="anti", maintain_order="left")
    others = [name for name in names.values() if name not in _FIRST]
    rows = pl.concat([joined, unmatched], how="diagonal").select(*_FIRST, *others, *offer_columns)
    return Matches(rows, dict.fromkeys(STATUSES, 0) | url_counts, figures)


def _statuses(own: pl.DataFrame, coverage: pl.DataFrame) -> pl.Series:
    """Return each row's status.

    A URL that is missing from the export was added after the export, so it is pending. Octogen
    might have changed how it normalizes URLs since the table was sent, so URLs are also looked up
    as sent.
    """
    sent = own.select("normalized_url", pl.col("url").str.strip_chars())
    known = pl.concat(
        each.select("normalized_url", pl.col("covered").fill_null(value=False))
        for each in (coverage, sent.join(coverage.drop("normalized_url"), on="url"))
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
    joined = own.join(known, on="normalized_url", how="left", maintain_order="left")
    return joined.select(status.alias(_STATUS)).to_series()


def _column_names(own: Iterable[str], offer_columns: Iterable[str]) -> Mapping[str, str]:
    """Map the table's columns to names that do not clash with the columns in the offers."""
    taken = set(offer_columns)
    if clash := sorted(taken.intersection(_FIRST)):
        raise OctogenBigQueryInputError(
            f"The offers have a column {clash[0]!r}, but the matches also have a column with this "
            "name. Exclude the column from the offers asset, for example with `columns`."
        )
    # When snapshots are compared, Octogen's `exported_at` is ignored, but the user's is not.
    taken |= {"status", "matched_by", _EXPORTED_AT}
    kept = [name for name in own if name not in ADDED_COLUMNS]
    names = {name: f"own_{name}" if name in taken else name for name in kept}
    if clash := sorted({to for name, to in names.items() if name != to}.intersection(kept)):
        raise OctogenBigQueryInputError(
            f"The URL list's table has a column {clash[0]!r}, but the matches also have a "
            "column with this name. Rename the column in the table."
        )
    return names


def page_of(url: pl.Expr) -> pl.Expr:
    """Remove the parameters and the Shopify collection from a normalized URL."""
    page = url.str.replace(r"\?.*$", "")
    return page.str.replace(r"/collections/[^/]+(/products/[^/]+)$", "${1}")


def _url_forms(url: str) -> list[pl.Expr]:
    """Return expressions for a URL's normalized form, page and parameters."""
    form = normalized_url(pl.col(url))
    parameters = form.str.extract(r"\?(.*)$").fill_null("").str.split("&")
    return [form.alias(_FORM), page_of(form).alias(_PAGE), parameters.alias(_PARAMETERS)]


def _nearest(products: pl.DataFrame, urls: pl.DataFrame, per: str) -> pl.DataFrame:
    """Match products with URLs that point to the same page.

    For each product or URL in the column `per`, keep the pairs that share the most parameters. A
    pair is uncertain if the product's URL and the list's URL both have parameters, but none in
    common.
    """
    pairs = products.join(urls, on=_PAGE)
    shared = pl.col(_PARAMETERS).list.set_intersection(f"{_PARAMETERS}_right").list.len()
    # A URL without parameters has the empty string as its only parameter.
    have_none = pl.concat_list(_PARAMETERS, f"{_PARAMETERS}_right").list.contains("")
    nearest = pairs.filter(shared == shared.max().over(per))
    return nearest.with_columns(((shared == 0) & ~have_none).alias(_UNCERTAIN))


def _ties(pairs: pl.DataFrame, per: str, page: str) -> int:
    """Count the products or URLs that have several equally good matches."""
    return len(pairs.group_by(per).agg(pl.col(page).n_unique()).filter(pl.col(page) > 1))


def _pairs(urls: pl.DataFrame, offers: pl.LazyFrame) -> tuple[pl.DataFrame, Mapping[str, int]]:
    """Match the products with the covered URLs, and count the matches.

    Each match is a pair of a product's number and a row's number.
    """
    echo = "normalized_url"
    products = (
        offers.select(pl.col("product_url").alias(_URL))
        .with_row_index(_PRODUCT)
        .with_columns(_url_forms(_URL))
        .collect(engine="streaming")
    )
    spellings = urls.select(
        _ROW, pl.concat_list(pl.col("url").str.strip_chars(), echo).list.unique().alias(_URL)
    ).explode(_URL)
    # The page is derived from Octogen's normalized form only.
    forms = urls.select(_ROW, echo, *_url_forms(echo))
    rest, by_url = products, []
    for keys, on in ((spellings, _URL), (forms, _FORM)):
        by_url.append(rest.join(keys, on=on).select(_PRODUCT, _ROW))
        rest = rest.join(by_url[-1], on=_PRODUCT, how="anti")
    near = _nearest(rest, forms, _PRODUCT)

    def unpaired(pairs: pl.DataFrame) -> pl.DataFrame:
        """Return the rows whose URL has no match. Rows with the same URL share their matches."""
        paired = forms.join(pairs, on=_ROW, how="semi").select(echo)
        return forms.join(paired, on=echo, how="anti")

    product_pairs = pl.concat(
        each.select(_PRODUCT, _ROW, pl.lit(name).alias("matched_by"))
        for each, name in ((by_url[0], "url"), (by_url[1], "url"), (near, "page"))
    ).unique()
    added = _nearest(products, unpaired(product_pairs), _ROW)
    url_pairs = added.select(_PRODUCT, _ROW, pl.lit("page").alias("matched_by"))
    pairs = pl.concat([product_pairs, url_pairs.unique()]).sort(_PRODUCT, _ROW)
    certain = pl.concat(
        [*by_url, *(each.remove(_UNCERTAIN).select(_PRODUCT, _ROW) for each in (near, added))]
    )
    without = unpaired(pairs)[echo].n_unique()

    def matched(by: str) -> int:
        return pairs.filter(matched_by=by)[_PRODUCT].n_unique()

    return pairs, {
        "products": len(products),
        "matched_by_url": matched("url"),
        "matched_by_page": matched("page"),
        "unmatched_products": len(products) - pairs[_PRODUCT].n_unique(),
        "addresses_without_products": without,
        "addresses_in_doubt": unpaired(certain)[echo].n_unique() - without,
        "ties": _ties(near, _PRODUCT, echo) + _ties(added, echo, _FORM),
    }
