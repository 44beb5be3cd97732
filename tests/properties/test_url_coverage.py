"""Products are joined with addresses as the rules say."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octogen_dagster.frames.urls import normalized_url
from octogen_dagster.url_lists.matching import EXPORTED, STATUSES, page_of, url_matches
from tests.prices_model import page as form

UNKNOWN = ("pending", "rejected")
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


States = dict[str, tuple[str, bool]]
"""The status of each address of a list, and if Octogen has normalized it again since."""
states = st.dictionaries(
    urls,
    st.tuples(
        st.sampled_from(["covered"] * 4 + ["not_covered", "unsaid", *UNKNOWN]), st.booleans()
    ),
    max_size=6,
)


def own_of(urls: Sequence[str], states: States) -> pl.DataFrame:
    """The table of a list, whose addresses Octogen writes as they are sent."""
    accepted = [None if states[url][0] == "rejected" else url for url in urls]
    return pl.DataFrame(
        {"sku": range(len(urls)), "url": urls, "normalized_url": accepted},
        schema={"sku": pl.Int64, "url": pl.String, "normalized_url": pl.String},
    )


def exported_of(states: States) -> pl.DataFrame:
    """What Octogen exports of addresses, and of one that the table lost."""
    covered = {"covered": True, "not_covered": False, "unsaid": None}
    rows = [
        (url, f"{url}#new" if is_new else url, covered[status], None)
        for url, (status, is_new) in states.items()
        if status not in UNKNOWN
    ]
    rows.append(("https://shop.example/lost", "https://shop.example/lost", True, None))
    return pl.DataFrame(rows, schema=EXPORTED, orient="row")


def nearest(places: Sequence[tuple[int, str]], to: str) -> list[tuple[int, str]]:
    """Those of places of the same page that share most parameters with an address."""

    near = [(number, url) for number, url in places if page(url) == page(to)]
    shared = [len(parameters(url) & parameters(to)) for _, url in near]
    return [each for each, count in zip(near, shared, strict=True) if count == max(shared)]


def pairs_of(
    of_addresses: Sequence[tuple[int, str]], products: Sequence[str]
) -> tuple[set[tuple[int, int | None, str]], int]:
    """The pairs of products and addresses by their places, by the rules of the documents; ties."""
    found, ties = set[tuple[int, int | None, str]](), 0
    addresses, of_products = dict(of_addresses), [*enumerate(products)]
    for number, product in of_products:
        same = [place for place, each in of_addresses if each == product]
        same = same or [place for place, each in of_addresses if form(each) == form(product)]
        near = [] if same else nearest(of_addresses, product)
        found |= {(number, place, "url") for place in same}
        found |= {(number, place, "page") for place, _ in near}
        found |= set() if same or near else {(number, None, "")}
        ties += len({each for _, each in near}) > 1
    have = {addresses[place] for _, place, _ in found if place is not None}
    for address in {*addresses.values()} - have:
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
@settings(max_examples=100)
@given(states, st.data(), st.lists(urls, max_size=8))
def test_statuses_and_pairs_are_those_of_the_rules(
    states: States, data: st.DataObject, products: list[str]
) -> None:
    table = data.draw(st.lists(st.sampled_from(sorted(states)), max_size=6)) if states else []
    own = own_of(table, states)
    shop = pl.DataFrame(
        {"uuid": range(len(products)), "product_url": products},
        schema={"uuid": pl.Int64, "product_url": pl.String},
    )
    found = url_matches(own, exported_of(states), shop.lazy())
    rows = found.rows.collect()
    status = {"unsaid": "not_covered"}
    expected = [status.get(each, each) for each, _ in (states[url] for url in table)]
    assert {*rows.drop_nulls("sku").select("sku", "status").rows()} == {*enumerate(expected)}
    of_urls = dict(zip(table, expected, strict=True))
    assert found.url_counts == {each: [*of_urls.values()].count(each) for each in STATUSES}

    joined = rows.drop_nulls("uuid")
    assert {*rows.filter(pl.col("uuid").is_null())["sku"]} == {*own["sku"]} - {*joined["sku"]}
    matched = joined.select("uuid", "sku", pl.col("matched_by").fill_null("")).rows()
    assert len(matched) == len({*matched})
    covered = [(place, url) for place, url in enumerate(table) if of_urls[url] == "covered"]
    pairs, ties = pairs_of(covered, products)
    assert {*matched} == pairs
    metrics = found.figures
    assert metrics["ties"] == ties
    assert metrics["products"] == len(products)
    assert metrics["unmatched_products"] == joined["sku"].is_null().sum()
    addresses = {url for _, url in covered}
    without = addresses - {*joined["url"].drop_nulls()}
    assert metrics["addresses_without_products"] == len(without)
    sure = {
        table[place]
        for number, place, _ in pairs
        if place is not None
        and (
            parameters(table[place]) & parameters(products[number])
            or "" in parameters(table[place]) | parameters(products[number])
        )
    }
    assert metrics["addresses_in_doubt"] == len(addresses - sure - without)
    assert found.matched_fraction == (len(sure) / len(addresses) if addresses else None)


@given(urls)
def test_a_page_is_the_host_and_the_path(url: str) -> None:
    assert pl.select(page_of(normalized_url(pl.lit(url)))).item() == f"https://{page(url)}"
