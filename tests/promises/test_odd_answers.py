"""Odd headers and statuses are read or ignored by both clients, and never break a read."""

from __future__ import annotations

import pytest

from octogen_dagster.errors import OctogenAPIError, OctogenRateLimitError
from tests.api.clients import Transport, open_client
from tests.api.leaks import failure
from tests.api.servers import RawServer

FAR_FUTURE = f"Wed, 21 Oct 1{'0' * 20} 07:28:00 GMT"
ODD_NUMBERS = ("\u00b2", "\u00e9", "nan", "inf", "1e400", "9" * 400, "-1", "1.5", "")


def response(status: str, content: str, *lines: str) -> bytes:
    """A response whose lines are sent in Latin-1."""
    head = (f"HTTP/1.1 {status}", "connection: close", f"content-length: {len(content)}", *lines)
    return "\r\n".join((*head, "", content)).encode("latin-1")


@pytest.mark.parametrize(
    "lines",
    [
        ["x-shop: caf\u00e9"],
        *([f"x-ratelimit-limit: {odd}", "x-ratelimit-remaining: 5"] for odd in ODD_NUMBERS),
        *(["x-ratelimit-limit: 60", f"x-ratelimit-remaining: {odd}"] for odd in ODD_NUMBERS),
        [f"date: {FAR_FUTURE}", f"retry-after: {FAR_FUTURE}"],
        ["x-request-id: " + "r" * 5_000],
    ],
)
async def test_a_page_with_odd_headers_is_read(lines: list[str]) -> None:
    content = '{"items": [{"uuid": "a", "productUrl": "https://shop.example/a"}]}'
    with RawServer(lambda _: [response("200 OK", content, *lines)]) as server:
        async with open_client(server) as client:
            uuids = [product.uuid async for product in client.iter_products()]
    assert uuids == ["a"]


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ([f"retry-after: {FAR_FUTURE}"], None),
        (["retry-after: \u00b2"], None),
        (["retry-after: \u00e9"], None),
        (["retry-after: -5"], None),
        (["retry-after: 1.5"], None),
        (["retry-after: " + "9" * 400], 366 * 24 * 3600.0),
        (["retry-after: Wed, 21 Oct 2026 07:29:00", "date: Wed, 21 Oct 2026 07:28:00 GMT"], 60.0),
        (["retry-after: 7", f"date: {FAR_FUTURE}"], 7.0),
    ],
)
async def test_an_odd_retry_after_is_read_or_ignored(
    transport: Transport, lines: list[str], seconds: float | None
) -> None:
    content = response("429 Slow", '{"detail": "rate_limit_exceeded"}', *lines)
    with RawServer(lambda _: [content]) as server:
        error = await failure(server, transport)
    assert isinstance(error, OctogenRateLimitError)
    assert error.retry_after == seconds


@pytest.mark.parametrize(
    ("status", "lines", "text"),
    [
        ("304 Not Modified", [], "304 Not Modified. It says that nothing has changed"),
        ("304 Not Modified", ["location: https://x.example/"], "It says that nothing has changed"),
        ("300 Choices", [], "300 Multiple Choices. It names no other address: check base_url."),
        ("399 Odd", ["location: "], "399 without a reason. It names no other address"),
        ("307 Moved", ["location: https://\u00e9.example/"], "It redirects to \u00e9.example, and"),
        ("500 Odd", ["x-request-id: a\x1bb" + "c" * 500], f"request 'a\\x1bb{'c' * 197}'. The"),
        ("500 \u00e9", ["content-type: text/html; charset=hex"], "500 Internal Server Error. The"),
        ("404 Gone", ["content-type: \u00e9; charset=\u00b2"], "404 Not Found. Check the name"),
    ],
)
async def test_an_odd_refusal_has_a_clear_text(
    transport: Transport, status: str, lines: list[str], text: str
) -> None:
    with RawServer(lambda _: [response(status, "", *lines)]) as server:
        error = await failure(server, transport)
    assert isinstance(error, OctogenAPIError)
    assert text in str(error)
    assert str(error).isprintable()
