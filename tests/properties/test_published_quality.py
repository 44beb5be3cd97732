"""Measures of products that are made from the published models, against plain Python."""

from __future__ import annotations

from collections import Counter
from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from octogen_ai_sdk.generated.models import MerchantProductListItem, ProgrammaticProductSearchPage

from octogen_dagster.frames.quality import ProductQuality
from tests.properties.test_published_decode import EFFECTIVE_QUERY, decode, rows
from tests.published import answers, bodies, published, text

products = answers(
    MerchantProductListItem,
    {
        "uuid": st.sampled_from(["a", "b", "c", "d"]) | text.filter(bool),
        "currency": st.sampled_from(["EUR", "USD", None]),
        "currentPrice": st.sampled_from([None, -1, 0, 0.5, 10.0, 1e308]),
        "originalPrice": st.sampled_from([None, -2, 0.5, 20.0]),
    },
)
pages = answers(
    ProgrammaticProductSearchPage,
    {
        "items": st.lists(products, min_size=1, max_size=12),
        "effectiveQuery": st.just(EFFECTIVE_QUERY),
    },
)


def problem(row: dict[str, Any]) -> str | None:
    price, original = row["current_price"], row["original_price"]
    if any(each is not None and each < 0 for each in (price, original)):
        return "negative"
    if price == 0:
        return "zero"
    below = price is not None and original is not None and original < price
    return "original below current" if below else None


@published
@given(st.lists(bodies(pages), min_size=1, max_size=2))
def test_the_measures_are_those_of_plain_python(contents: list[bytes]) -> None:
    expected = rows(contents)
    quality = ProductQuality(decode(contents).lazy(), price_outlier_ratio=float("inf"))

    assert quality.rows == len(expected)
    identities = Counter((row["catalog_key"], row["uuid"]) for row in expected)
    assert quality.repeats == len(expected) - len(identities)
    repeated = {each for each, count in identities.items() if count > 1}
    sample = quality.repeated_rows()
    assert len(sample) == min(5, len(repeated))
    assert {(row["catalog_key"], row["uuid"]) for row in sample.to_dicts()} <= repeated
    for name, share in quality.null_shares.items():
        values = [row[name] for row in expected]
        if name == "brand":
            values = [value and value["name"] for value in values]
        assert share == values.count(None) / len(values)
    problems = Counter((row["currency"], problem(row)) for row in expected)
    for row in quality.prices.to_dicts():
        of = {each: n for (currency, each), n in problems.items() if currency == row["currency"]}
        assert row["products"] == sum(of.values())
        assert {each: row[each] for each in of if each} == {k: n for k, n in of.items() if k}
        assert row["bad"] == row["products"] - of.get(None, 0)
    bad = quality.bad_price_rows()
    assert len(bad) == min(5, sum(n for (_, each), n in problems.items() if each))
    assert bad.filter(pl.col("problem").is_null()).is_empty()
