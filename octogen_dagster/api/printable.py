"""Text that a server chose, made fit for an error message: short, on one line, and visible."""

from __future__ import annotations

import reprlib
from typing import Any

_MAX_ENTRIES = 10


def printable(text: str, limit: int) -> str:
    r"""Cut a text, join its lines, and escape what is not printable, such as `\x1b` of a terminal.

    Args:
        text: The text.
        limit: The largest number of its characters that are kept.
    """
    line = " ".join(text.split())[:limit]
    if line.isprintable():
        return line
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in line
    )


def shortened(value: Any, limit: int) -> str:
    """Return the beginning of a text, or of any other value as Python shows it.

    Args:
        value: A value of a JSON document, of whatever size and depth.
        limit: The largest number of characters.
    """
    if isinstance(value, str):
        return value[:limit]
    short = reprlib.Repr()
    short.maxdict = short.maxlist = _MAX_ENTRIES
    short.maxstring = short.maxother = limit
    return short.repr(value)[:limit]
