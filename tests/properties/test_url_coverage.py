"""Products are joined with addresses as the rules say, however their rows are cut into batches."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from urllib.parse import urlsplit

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octogen_dagster.url_lists.matching import ProductJoin, coverage_of, page_of

PATHS = ("/products/a", "/products/b", "/collections/x/products/a", "/p", "/p/")
urls = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "https"]),
    st.sampled_from(["shop.example", "SHOP.example", "zen.example"]),
    st.sampled_from(PATHS),
    st.sampled_from(["", "?c=1", "?c=2", "#top"]),
)


def page(url: str) -> str:
    """The page of an address, without Polars."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/").replace("/collections/x/products/", "/products/")
    return parts.netloc.lower() + path


def pairs_of(addresses: Sequence[str], products: Sequence[str]) -> set[tuple[int, int | None, str]]:
    """The pairs of products and addresses by their places, by the rules of the documents."""
    found = set[tuple[int, int | None, str]]()
    for number, product in enumerate(products):
        same = [place for place, each in enumerate(addresses) if each == product]
        near = [place for place, each in enumerate(addresses) if page(each) == page(product)]
        found |= {(number, place, "url") for place in same}
        found |= set() if same else {(number, place, "page") for place in near}
        found |= set() if same or near else {(number, None, "")}
    have = {place for _, place, _ in found}
    for place, address in enumerate(addresses):
        # An address counts with all rows that have the same one.
        if not have.intersection(i for i, each in enumerate(addresses) if each == address):
            found |= {
                (number, place, "page")
                for number, product in enumerate(products)
                if page(product) == page(address)
            }
    return found


@pytest.mark.slow
@given(st.lists(urls, max_size=6), st.lists(urls, max_size=8), st.sets(st.integers(1, 7)))
def test_pairs_are_those_of_the_rules(
    addresses: list[str], products: list[str], cuts: set[int]
) -> None:
    own = pl.DataFrame(
        {"sku": range(len(addresses)), "url": addresses, "normalized_url": addresses},
        schema={"sku": pl.Int64, "url": pl.String, "normalized_url": pl.String},
    )
    exported = pl.DataFrame(
        {"url": addresses, "normalized_url": addresses, "covered": True, "exported_at": None},
        schema={
            "url": pl.String,
            "normalized_url": pl.String,
            "covered": pl.Boolean,
            "exported_at": pl.Datetime("us", "UTC"),
        },
    )
    shop = pl.DataFrame(
        {"uuid": range(len(products)), "product_url": products},
        schema={"uuid": pl.Int64, "product_url": pl.String},
    )
    join = ProductJoin(own, coverage_of(own, exported))
    edges = [0, *sorted(cut for cut in cuts if cut < len(products)), len(products)]
    frames = [join(shop[first:last]) for first, last in pairwise(edges)]
    rest = join.rest()
    joined = pl.concat([*frames, *([] if rest is None else [rest])])
    rows = joined.select("uuid", "sku", pl.col("matched_by").fill_null("")).rows()
    assert len(rows) == len({*rows})
    assert {*rows} == pairs_of(addresses, products)
    metrics = join.metrics()
    assert metrics["products"] == len(products)
    assert metrics["unmatched_products"] == joined["sku"].is_null().sum()
    without = {*addresses} - {*joined["url"].drop_nulls()}
    assert metrics["addresses_without_products"] == len(without)


@given(urls)
def test_a_page_is_the_host_and_the_path(url: str) -> None:
    assert pl.select(page_of(pl.lit(url))).item() == page(url)
