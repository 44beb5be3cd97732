"""Addresses of products: what is refused, and what makes two of them equal."""

import pytest

from octogen_dagster.sandbox.rest.product_urls import (
    InvalidUrlError,
    normalized_host,
    parse_product_url,
)


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("https://www.x.example/p/a-1", "https://x.example/p/a-1"),
        ("http://X.example:8080/p/A-1#top", "https://x.example/p/A-1"),
        ("https://x.example/p?b=2&utm_source=m&a=1&gclid=3", "https://x.example/p?a=1&b=2"),
    ],
)
def test_an_address_has_one_normal_form(text: str, normalized: str) -> None:
    assert parse_product_url(text).normalized == normalized
    assert parse_product_url(normalized).normalized == normalized


def test_loose_candidates_lose_case_and_unknown_parameters() -> None:
    url = parse_product_url("https://x.example/P/A-1?v1=5&variant=7")
    assert url.loose_candidates() == [
        "https://www.x.example/p/a-1?variant=7",
        "https://www.x.example/p/a-1",
    ]


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("nonsense", "invalid_product_url"),
        ("", "invalid_product_url"),
        ("ftp://x.example/a", "invalid_product_url"),
        ("https://host/a", "invalid_product_url"),
        ("https://[::1", "invalid_product_url"),
        ("http://localhost/a", "unsafe_url"),
        ("http://127.0.0.1/a", "unsafe_url"),
        ("http://10.0.0.8/a", "unsafe_url"),
        ("http://printer.local/a", "unsafe_url"),
        ("https://me:secret@x.example/a", "unsafe_url"),
    ],
)
def test_an_address_outside_the_public_web_is_refused(text: str, detail: str) -> None:
    with pytest.raises(InvalidUrlError, match=f"^{detail}$"):
        parse_product_url(text)


@pytest.mark.parametrize("host", ["X.example", "www.x.example", " x.example:443 ", "x.example."])
def test_a_host_has_one_normal_form(host: str) -> None:
    assert normalized_host(host) == "x.example"
