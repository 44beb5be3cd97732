"""Texts and numbers as a terminal, a log, a message and a line of a table show them."""

from __future__ import annotations

import re
from collections.abc import Sequence

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_LEVELS = "▁▂▃▄▅▆▇█"


def printable(text: str) -> str:
    """Escape the control characters that a terminal obeys, line breaks included."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def printable_lines(text: str) -> str:
    """Escape the control characters in each line of a text."""
    return "\n".join(map(printable, text.split("\n")))


def count(number: int, singular: str, plural: str = "") -> str:
    """A number of things, such as `1 product` and `4,512 products`."""
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"


def block(share: float) -> str:
    """The character of a share of the height, 0 to 1."""
    return _LEVELS[round(share * (len(_LEVELS) - 1))]


def sparkline(numbers: Sequence[float], lowest: float | None = None) -> str:
    """Draw numbers from the lowest, by default of their own, to the highest; equal ones halfway."""
    low = min(numbers) if lowest is None else lowest
    height = max(numbers) - low
    return "".join(block((number - low) / height if height else 0.5) for number in numbers)
