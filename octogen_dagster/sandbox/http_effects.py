"""The effects of faults that all HTTP endpoints of the sandbox share."""

import asyncio
from contextlib import suppress

from starlette.responses import HTMLResponse

_WEB_PAGE = "<!doctype html><title>Just a moment...</title><h1>Checking your browser</h1>"


def web_page(status: int = 200) -> HTMLResponse:
    """Return the web page that a proxy might send instead of JSON."""
    return HTMLResponse(_WEB_PAGE, status)


async def delay(seconds: float, closing: asyncio.Event) -> None:
    """Wait, but only until `closing` is set, so that a server can stop at once."""
    if seconds:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(closing.wait(), seconds)
