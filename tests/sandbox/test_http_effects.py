"""The effects of faults that all HTTP endpoints share."""

import asyncio

from octogen_dagster.sandbox.http_effects import delay, web_page


def test_a_web_page_is_html_with_any_status() -> None:
    for status in (200, 502):
        page = web_page(status)
        assert page.status_code == status
        assert page.headers["content-type"].startswith("text/html")
        assert bytes(page.body).startswith(b"<!doctype html>")


async def test_a_delay_ends_when_the_server_closes() -> None:
    closing = asyncio.Event()
    waiting = asyncio.ensure_future(delay(3600, closing))
    await asyncio.sleep(0)
    assert not waiting.done()
    closing.set()
    await waiting


async def test_a_delay_ends_by_itself() -> None:
    closing = asyncio.Event()
    await delay(0.001, closing)
    assert not closing.is_set()


async def test_no_delay_is_no_wait() -> None:
    waiting = asyncio.ensure_future(delay(0, asyncio.Event()))
    await asyncio.sleep(0)
    assert waiting.done()
