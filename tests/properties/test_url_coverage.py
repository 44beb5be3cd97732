"""Products are joined with addresses as the rules say."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octogen_dagster.frames.urls import normalized_url
from octogen_dagster.url_lists.matching import EXPORTED, page_of, url_matches
from tests.prices_model import page as form

PATHS = ("/products/a", "/products/b", "/collections/x/products/a", "/p", "/p/", "/%70")
urls = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "https"]),
    st.sampled_from(["shop.example", "www.SHOP.example", "zen.example"]),
    st.sampled_from(PATHS),
    st.sampled_from(["", "?c=1", "?c=2", "#top", "?d=1&c=1", "?c=1&d=1", "?c=1&d=2&utm_id=1"]),
)


def page(url: str) -> str:
    """The page of an address, without Polars."""
    return str(form(url)).partition("?")[0].replace("/collections/x/products/", "/products/")


def parameters(url: str) -> set[str]:
    """The parameters of an address but for those of campaigns; an empty one if there are none."""
    return {*str(form(url)).partition("?")[2].split("&")}


def own_of(urls: Sequence[str]) -> pl.DataFrame:
    """The table of a list, whose addresses Octogen writes as they are sent."""
    return pl.DataFrame(
        {"sku": range(len(urls)), "url": urls, "normalized_url": urls},
        schema={"sku": pl.Int64, "url": pl.String, "normalized_url": pl.String},
    )


def nearest(places: Sequence[tuple[int, str]], to: str) -> list[tuple[int, str]]:
    """Those of places of the same page that share most parameters with an address."""

    near = [(number, url) for number, url in places if page(url) == page(to)]
    shared = [len(parameters(url) & parameters(to)) for _, url in near]
    return [each for each, count in zip(near, shared, strict=True) if count == max(shared)]


def pairs_of(
    addresses: Sequence[str], products: Sequence[str]
) -> tuple[set[tuple[int, int | None, str]], int]:
    """The pairs of products and addresses by their places, by the rules of the documents; ties."""
    found, ties = set[tuple[int, int | None, str]](), 0
    of_addresses, of_products = [*enumerate(addresses)], [*enumerate(products)]
    for number, product in of_products:
        same = [place for place, each in of_addresses if each == product]
        same = same or [place for place, each in of_addresses if form(each) == form(product)]
        near = [] if same else nearest(of_addresses, product)
        found |= {(number, place, "url") for place in same}
        found |= {(number, place, "page") for place, _ in near}
        found |= set() if same or near else {(number, None, "")}
        ties += len({each for _, each in near}) > 1
    have = {addresses[place] for _, place, _ in found if place is not None}
    for address in {*addresses} - have:
        near = nearest(of_products, address)
        ties += len({form(each) for _, each in near}) > 1
        found |= {
            (number, place, "page")
            for number, _ in near
            for place, each in of_addresses
            if each == address
        }
    return found, ties


@pytest.mark.slow
@given(st.lists(urls, max_size=6), st.lists(urls, max_size=8))
def test_pairs_are_those_of_the_rules(addresses: list[str], products: list[str]) -> None:
    own = own_of(addresses)
    exported = own.select("url", "normalized_url", covered=True, exported_at=None).cast(EXPORTED)
    shop = pl.DataFrame(
        {"uuid": range(len(products)), "product_url": products},
        schema={"uuid": pl.Int64, "product_url": pl.String},
    )
    found = url_matches(own, exported, shop.lazy())
    joined = found.rows.collect()
    assert {*joined.filter(pl.col("uuid").is_null())["sku"]} == {*own["sku"]} - {
        *joined.drop_nulls("uuid")["sku"]
    }
    joined = joined.drop_nulls("uuid")
    rows = joined.select("uuid", "sku", pl.col("matched_by").fill_null("")).rows()
    assert len(rows) == len({*rows})
    pairs, ties = pairs_of(addresses, products)
    assert {*rows} == pairs
    metrics = found.figures
    assert metrics["ties"] == ties
    assert metrics["products"] == len(products)
    assert metrics["unmatched_products"] == joined["sku"].is_null().sum()
    without = {*addresses} - {*joined["url"].drop_nulls()}
    assert metrics["addresses_without_products"] == len(without)
    sure = {
        addresses[place]
        for number, place, _ in pairs
        if place is not None
        and (
            parameters(addresses[place]) & parameters(products[number])
            or "" in parameters(addresses[place]) | parameters(products[number])
        )
    }
    assert metrics["addresses_in_doubt"] == len({*addresses} - sure - without)
    fraction = len(sure) / len({*addresses}) if addresses else None
    assert found.matched_fraction == fraction


@pytest.mark.parametrize(
    ("covered", "product", "fraction"),
    [
        (["/gone?id=1", "/gone?id=2"], "/other", None),  # the table was changed since
        (["/p?id=1", "/p?id=2"], "/p?id=1", 0.5),
        (["/p?id=1", "/p?utm_id=2"], "/p?id=1", 1.0),
        (["/p?id=1&ref=2", "/p"], "/p?id=1", 1.0),
        (["/p?id=1", "/gone"], "/other", 0.0),
    ],
)
def test_an_address_has_a_product_that_its_parameters_do_not_deny(
    covered: list[str], product: str, fraction: float | None
) -> None:
    there = own_of([f"https://shop.example{path}" for path in covered])
    own = there.filter(~pl.col("url").str.contains("/gone"))
    exported = there.select("url", "normalized_url", covered=True, exported_at=None).cast(EXPORTED)
    offers = pl.LazyFrame({"product_url": [f"https://shop.example{product}"]})
    assert url_matches(own, exported, offers).matched_fraction == fraction


@given(urls)
def test_a_page_is_the_host_and_the_path(url: str) -> None:
    assert pl.select(page_of(normalized_url(pl.lit(url)))).item() == f"https://{page(url)}"
