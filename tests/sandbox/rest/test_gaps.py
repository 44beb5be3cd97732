"""The gaps in what is sent: where they are, how many, and where none are."""

import functools
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from octogen_dagster.sandbox.data.catalog import make_catalog
from octogen_dagster.sandbox.rest.full_views import complete_view
from octogen_dagster.sandbox.rest.gaps import with_gaps
from octogen_dagster.sandbox.rest.views import complete_item, list_item

pytestmark = pytest.mark.slow

PRODUCTS = [make_catalog("grand-arcade", 2000, seed=1).product(index) for index in range(2000)]
REQUIRED = {"uuid", "productUrl", "catalogKey", "brand.name", "images.url", "colors.label"}
MAPPINGS = {"attributes", "attribute_handles", "classification"}


def fields(complete: Any, sent: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each field of an object and of those within: sent, null or absent."""
    for name, value in complete.items():
        if value is None or name in MAPPINGS:
            continue
        path = f"{prefix}{name}"
        state = "absent" if name not in sent else "null" if sent[name] is None else "sent"
        yield path, state
        if state != "sent":
            continue
        if isinstance(value, dict):
            yield from fields(value, sent[name], f"{path}.")
        elif value and isinstance(value, list) and isinstance(value[0], dict):
            for one, other in zip(value, sent[name], strict=True):
                yield from fields(one, other, f"{path}.")


@functools.cache
def states() -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for product in PRODUCTS:
        complete = complete_view(product, "current")
        for path, state in fields(complete, with_gaps(product, complete)):
            counts[path][state] += 1
    return counts


def test_every_nullable_field_is_sometimes_null_and_sometimes_absent() -> None:
    counts = states()
    nullable = {path for path, count in counts.items() if count["null"] and count["absent"]}
    assert {"imageUrl", "images.cdnUrl", "brand.slug", "enrichment", "variants.sku"} <= nullable
    assert {"description", "reviews.body", "identifiers.gtin"} <= nullable
    assert len(nullable) > 80
    for path in REQUIRED:
        assert counts[path].keys() == {"sent"}, path


def test_lists_are_absent_and_never_null() -> None:
    counts = states()
    for path in ("images", "sizes", "variants", "tags", "details.fit", "isActive"):
        assert counts[path].keys() == {"sent", "absent"}, path


def test_brands_have_hardly_ever_an_address_and_rarely_a_description() -> None:
    counts = states()
    url, description = counts["brand.url"], counts["brand.description"]
    assert 0 < url["sent"] / url.total() < 0.05
    assert 0.1 < description["sent"] / description.total() < 0.3
    assert url["null"] > url["absent"] > 0


def test_prices_have_no_gaps_of_their_own() -> None:
    for product in PRODUCTS:
        assert list_item(product, "seed").get("currentPrice") == product.current_price


def test_every_view_of_a_product_has_the_same_gaps() -> None:
    for product in PRODUCTS[:200]:
        item = with_gaps(product, complete_item(product, "current"))
        view = with_gaps(product, complete_view(product, "current"))
        for name in item.keys() & view.keys() - {"colors", "sizes"}:
            assert view[name] == item[name]


def test_parts_of_a_list_differ() -> None:
    sent = [with_gaps(p, complete_view(p, "current")).get("variants") or [] for p in PRODUCTS]
    assert any(len({"sku" in variant for variant in variants}) == 2 for variants in sent)
