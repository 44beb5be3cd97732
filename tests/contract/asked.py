"""Asks a service that has one answer, with the public client."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx

from octogen_dagster import OctogenClient
from tests.api.servers import KEY

Answer = TypeVar("Answer")


async def asked(
    content: bytes | Any, call: Callable[[OctogenClient], Awaitable[Answer]], status: int = 200
) -> Answer:
    """Return what a call of the client makes of an answer.

    Args:
        content: The body of each answer; what is not bytes is sent as JSON.
        call: The call.
        status: The status of each answer.
    """
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    headers = {"content-type": "application/json"}
    transport = httpx.MockTransport(lambda _: httpx.Response(status, headers=headers, content=body))
    async with httpx.AsyncClient(transport=transport) as sender:
        return await call(OctogenClient(api_key=KEY, http_client=sender))
