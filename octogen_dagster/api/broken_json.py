"""Finds the product of a page at which its JSON is broken."""

from __future__ import annotations

import re
import string
from typing import Any, NamedTuple

from pydantic_core import from_json

_WORD = b"+-." + (string.ascii_letters + string.digits).encode()
_PLACE = re.compile(r"at line (\d+) column (\d+)$")


class BrokenProduct(NamedTuple):
    """A product whose JSON is broken.

    Attributes:
        uuid: Its uuid; None if the JSON is broken before it.
        place: Its place on the page, counted from 0.
        field: The field that is broken; None if there is none yet.
    """

    uuid: Any
    place: int
    field: str | None


def find_broken_product(content: bytes, message: str) -> BrokenProduct | None:
    """Return the last product that begins before the place where a parser gave up.

    A body that ends too early has no broken product.

    Args:
        content: The JSON of a page.
        message: The message of pydantic's JSON parser, which ends with the place.
    """
    match = _PLACE.search(message)
    if match is None or message.startswith("EOF"):
        return None
    line, column = map(int, match.groups())
    begin = 0
    for _ in range(line - 1):
        begin = content.index(b"\n", begin) + 1
    # The place may be after the byte that is wrong (pydantic 2.12) or before it.
    text = content[: begin + column - 1].decode(errors="ignore").encode()
    readable = text.rstrip(_WORD).rstrip()
    if readable.endswith(b":"):
        readable += b"null"  # without a value, the field would be left out
    try:
        page = from_json(readable, allow_partial="trailing-strings")
    except ValueError:
        return None
    items = page.get("items") if isinstance(page, dict) else None
    if not isinstance(items, list) or not items or not isinstance(items[-1], dict):
        return None
    if next(reversed(page)) != "items":
        return None
    field = next(reversed(items[-1]), None)
    uuid = None if field == "uuid" else items[-1].get("uuid")
    return BrokenProduct(uuid, len(items) - 1, field)
