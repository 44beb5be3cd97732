"""The join of own addresses with what Octogen exported of them: its coverage and its offers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import polars as pl

from octogen_dagster.errors import OctogenBigQueryInputError
from octogen_dagster.frames.kinds import TableKind
from octogen_dagster.frames.urls import normalized_url
from octogen_dagster.printable import count

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
"""The columns that are needed of the view `url_coverage_v1`."""
MATCHES_DESCRIPTIONS = {
    "sku": "The own article; null for a product of no address.",
    "url": "A competitor's page in the own table.",
    "status": "`covered`, `not_covered`, `pending` (added since the last export) or `rejected`.",
    "matched_by": "`url` if the product's address is this one, `page` if only the page is; null "
    "where there is no pair.",
    "product_url": "The address of Octogen's product.",
}
_EXPORTED_AT = "exported_at"
MATCHES_KIND = TableKind(descriptions=MATCHES_DESCRIPTIONS, volatile=(_EXPORTED_AT,))
"""Its other columns are not known beforehand: they are those of the own table and the offers."""

_FIRST = ("sku", "url", "status", "matched_by")
_PRODUCT, _ADDRESS, _TEXT, _PAGE = (f"octogen_{each}" for each in ("product", "row", "url", "page"))
_FORM, _PARAMETERS, _DOUBT = (f"octogen_{each}" for each in ("form", "parameters", "doubt"))
_STATUS = "octogen_status"  # the own table may have a column `status`


class Matches(NamedTuple):
    """The result of `url_matches`.

    Attributes:
        rows: A row for each pair of an own row and a product, and for each that is in none.
        addresses: The number of different own addresses by status.
        figures: The numbers of products, and of covered addresses that have none for sure.
    """

    rows: pl.LazyFrame
    addresses: Mapping[str, int]
    figures: Mapping[str, int]

    @property
    def summary(self) -> str:
        """The sentence about addresses and products."""
        covered, figures = self.addresses[COVERED], self.figures
        having = covered - figures["addresses_without_products"]
        total = count(sum(self.addresses.values()), "address", "addresses")
        parts = [
            f"**{covered:,} of {total} covered**",
            *(
                f"{self.addresses[status]:,} {status.replace('_', ' ')}"
                for status in STATUSES[1:]
                if self.addresses[status]
            ),
        ]
        of_products = [
            f"**{count(figures['products'], 'product')}** of {having:,} of "
            f"{count(covered, 'covered address', 'covered addresses')}"
        ]
        for name, words in (
            ("addresses_in_doubt", "in doubt"),
            ("unmatched_products", "of no address"),
            ("ties", "tied"),
        ):
            if figures[name]:
                of_products.append(f"{figures[name]:,} {words}")
        return f"{', '.join(parts)}; {', '.join(of_products)}"

    @property
    def matched_fraction(self) -> float | None:
        """The share of covered addresses that have a product without doubt; None of none."""
        covered, figures = self.addresses[COVERED], self.figures
        unsure = figures["addresses_without_products"] + figures["addresses_in_doubt"]
        return (covered - unsure) / covered if covered else None


def url_matches(own: pl.DataFrame, coverage: pl.DataFrame, offers: pl.LazyFrame) -> Matches:
    """Join own addresses with the products that Octogen exported of them.

    A product belongs to the covered addresses that are written as its own, as they were sent or as
    Octogen echoed them, and without any to those of its page that share most parameters with it. A
    covered address without any product then gets those of its page that share most, whosever they
    are: Octogen says that it has some.
    """
    of_offers = offers.collect_schema().names()
    names = _own_names(own.columns, of_offers)
    own = own.with_columns(pl.col("url", "normalized_url").cast(pl.String)).with_row_index(_ADDRESS)
    own = own.with_columns(_statuses(own, coverage))
    pairs, figures = _pairs(own.filter(pl.col(_STATUS) == COVERED), offers)
    address = pl.coalesce("normalized_url", "url")
    addresses = dict(own.group_by(_STATUS).agg(address.n_unique()).rows())

    columns = [pl.col(each).alias(to) for each, to in names.items()]
    table = own.lazy().select(_ADDRESS, pl.col(_STATUS).alias("status"), *columns)
    of_pairs = pairs.lazy()
    joined = (
        offers.with_row_index(_PRODUCT)
        .join(of_pairs, on=_PRODUCT, how="left", maintain_order="left_right")
        .join(table, on=_ADDRESS, how="left", maintain_order="left")
    )
    lone = table.join(of_pairs, on=_ADDRESS, how="anti", maintain_order="left")
    others = [name for name in names.values() if name not in _FIRST]
    rows = pl.concat([joined, lone], how="diagonal").select(*_FIRST, *others, *of_offers)
    return Matches(rows, dict.fromkeys(STATUSES, 0) | addresses, figures)


def _statuses(own: pl.DataFrame, coverage: pl.DataFrame) -> pl.Series:
    """The status of each own row.

    An address that is not in the export was added after it, and is pending. Octogen may have
    normalized its lists anew since the own table was sent, so an address is also known as it was
    submitted.
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


def _own_names(own: Iterable[str], of_offers: Iterable[str]) -> Mapping[str, str]:
    """Name the columns of the own table beside those of the offers."""
    taken = set(of_offers)
    if clash := sorted(taken.intersection(_FIRST)):
        raise OctogenBigQueryInputError(
            f"The offers have a column {clash[0]!r}, which the asset adds. Name the columns to "
            "read with columns=, without it."
        )
    taken |= {"status", "matched_by", _EXPORTED_AT}  # the last is not compared: it is Octogen's
    kept = [name for name in own if name not in OF_SERVICE]
    names = {name: f"own_{name}" if name in taken else name for name in kept}
    if clash := sorted({to for name, to in names.items() if name != to}.intersection(kept)):
        raise OctogenBigQueryInputError(
            f"The table of the list has a column {clash[0]!r}, which the asset adds. Rename it in "
            "the table."
        )
    return names


def page_of(url: pl.Expr) -> pl.Expr:
    """The page of a normalized address: without its parameters.

    A product of Shopify has the same page in each of its collections.
    """
    page = url.str.replace(r"\?.*$", "")
    return page.str.replace(r"/collections/[^/]+(/products/[^/]+)$", "${1}")


def _told_apart(url: str) -> list[pl.Expr]:
    """The form of an address that all of its spellings share, its page and its parameters."""
    form = normalized_url(pl.col(url))
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


def _ties(pairs: pl.DataFrame, of: str, page: str) -> int:
    """The number of products, or addresses, that have several pages which are equally near."""
    return len(pairs.group_by(of).agg(pl.col(page).n_unique()).filter(pl.col(page) > 1))


def _pairs(addresses: pl.DataFrame, offers: pl.LazyFrame) -> tuple[pl.DataFrame, Mapping[str, int]]:
    """The pairs of products and covered addresses, by their places, and their figures."""
    echo = "normalized_url"
    products = (
        offers.select(pl.col("product_url").alias(_TEXT))
        .with_row_index(_PRODUCT)
        .with_columns(_told_apart(_TEXT))
        .collect(engine="streaming")
    )
    texts = addresses.select(
        _ADDRESS, pl.concat_list(pl.col("url").str.strip_chars(), echo).list.unique().alias(_TEXT)
    ).explode(_TEXT)
    # Where the service has echoed an address, only that is normalized here, to find its page.
    forms = addresses.select(_ADDRESS, echo, *_told_apart(echo))
    keys, found = products, []
    for of_addresses, on in ((texts, _TEXT), (forms, _FORM)):
        found.append(keys.join(of_addresses, on=on).select(_PRODUCT, _ADDRESS))
        keys = keys.join(found[-1], on=_PRODUCT, how="anti")
    near = _nearest(keys, forms, _PRODUCT)

    def lacking(pairs: pl.DataFrame) -> pl.DataFrame:
        """The addresses in no pair; one of several articles is one."""
        having = forms.join(pairs, on=_ADDRESS, how="semi").select(echo)
        return forms.join(having, on=echo, how="anti")

    of_products = pl.concat(
        each.select(_PRODUCT, _ADDRESS, pl.lit(name).alias("matched_by"))
        for each, name in ((found[0], "url"), (found[1], "url"), (near, "page"))
    ).unique()
    rest = _nearest(products, lacking(of_products), _ADDRESS)
    of_rest = rest.select(_PRODUCT, _ADDRESS, pl.lit("page").alias("matched_by"))
    pairs = pl.concat([of_products, of_rest.unique()]).sort(_PRODUCT, _ADDRESS)
    sure = pl.concat(
        [*found, *(each.remove(_DOUBT).select(_PRODUCT, _ADDRESS) for each in (near, rest))]
    )
    without = lacking(pairs)[echo].n_unique()

    def matched(by: str) -> int:
        return pairs.filter(matched_by=by)[_PRODUCT].n_unique()

    return pairs, {
        "products": len(products),
        "matched_by_url": matched("url"),
        "matched_by_page": matched("page"),
        "unmatched_products": len(products) - pairs[_PRODUCT].n_unique(),
        "addresses_without_products": without,
        "addresses_in_doubt": lacking(sure)[echo].n_unique() - without,
        "ties": _ties(near, _PRODUCT, echo) + _ties(rest, echo, _FORM),
    }
