"""Finds a secret in an error: in its text, pickle, attributes and traceback."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import httpx2
import pytest
from rich.pretty import pretty_repr

from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.errors import OctogenError
from tests.api.clients import ONCE, Transport, open_client
from tests.api.servers import KEY

SECRET = KEY.rpartition("_")[2]
"""The part of the key that alone is as good as all of it."""

TESTS = Path(__file__).parent


async def failure(server: Any, transport: Transport, retry: RetryPolicy = ONCE) -> OctogenError:
    """The error that a search raises."""
    async with open_client(server, transport, retry=retry) as client:
        with pytest.raises(OctogenError) as caught:
            await client.search_products(catalog="strada")
        assert SECRET not in shown(client)
    return caught.value


def assert_silent(error: OctogenError) -> None:
    """Check that the key can be read nowhere in an error that was raised and caught."""
    assert frames_of(error), "there is a traceback to look at"
    assert leaks(error, SECRET) == []
    assert SECRET.encode() not in pickle.dumps(error)


def leaks(error: BaseException, secret: str) -> list[str]:
    """The places where the secret can be read in an error that was raised and caught."""
    return [
        f"{type(part).__name__}: {place}"
        for part in chain(error)
        for place, text in (*texts_of(part), *locals_of(part))
        if secret in text
    ]


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, its causes, its contexts and the errors of its groups."""
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        part = waiting.pop()
        if part is not None and part not in seen:
            seen.append(part)
            waiting += [part.__cause__, part.__context__]
            waiting += part.exceptions if hasattr(part, "exceptions") else []
            yield part


def frames_of(error: BaseException) -> list[FrameType]:
    """The frames of an error's traceback that do not belong to the tests."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return [frame for frame in frames if TESTS not in Path(frame.f_code.co_filename).parents]


def texts_of(error: BaseException) -> Iterator[tuple[str, str]]:
    yield "str", str(error)
    yield "repr", repr(error)
    yield "args", repr(error.args)
    yield "attributes", pretty_repr(vars(error))
    yield "pickle", pickle.dumps(error).decode("latin-1")
    response = getattr(error, "response", None)
    if response is not None:
        yield from (("response", text) for text in texts_of_response(response))


def texts_of_response(response: httpx.Response | httpx2.Response) -> Iterator[str]:
    yield response.text
    yield str(response.headers.raw)
    yield str(response.request.headers.raw)
    if response.next_request is not None:
        yield str(response.next_request.headers.raw)


def locals_of(error: BaseException) -> Iterator[tuple[str, str]]:
    """The locals as debuggers and error reporters show them, with the parts of containers."""
    for frame in frames_of(error):
        for name, value in frame.f_locals.items():
            place = f"{name} in {frame.f_code.co_name}"
            yield place, shown(value)
            if isinstance(value, httpx.Response | httpx2.Response):
                yield from ((place, text) for text in texts_of_response(value))


def shown(value: Any) -> str:
    """A value as debuggers show it; one that is not made yet may have no `repr`."""
    try:
        return f"{value!r}\n{pretty_repr(value)}"
    except AttributeError:
        return object.__repr__(value)
