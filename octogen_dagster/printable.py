"""Texts and numbers as a terminal, a log, a message, a spreadsheet and a table show them."""

from __future__ import annotations

import csv
import json
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import date, time
from decimal import Decimal
from typing import Any, TextIO

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
"""The beginning of a text that a spreadsheet evaluates, also by its full-width characters."""
_LEVELS = "▁▂▃▄▅▆▇█"


def printable(text: str) -> str:
    """Escape the control characters that a terminal obeys, line breaks included."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def printable_lines(text: str) -> str:
    """Escape the control characters in each line of a text."""
    return "\n".join(map(printable, text.split("\n")))


def write_csv(to: TextIO, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a header and rows as CSV in which no text is a formula of a spreadsheet.

    An apostrophe precedes a text that a spreadsheet would evaluate. Times and dates are in ISO
    form, truth values as in JSON, null is empty, and a list has blanks between its values.
    """
    table = csv.writer(to, lineterminator="\n")
    table.writerow(map(_csv_cell, columns))
    table.writerows(map(_csv_cell, row) for row in rows)


def _csv_cell(value: Any) -> Any:
    if value is None or type(value) in (int, float, Decimal):
        return value
    values = value if isinstance(value, list) else [value]
    text = printable(" ".join(map(_csv_text, values)))
    return f"'{text}" if _FORMULA.match(text) else text


def _csv_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, (bool, list, dict)):
        return json.dumps(value, ensure_ascii=False, default=_csv_text)
    return value.isoformat() if isinstance(value, (date, time)) else str(value)


def count(number: int, singular: str, plural: str = "") -> str:
    """A number of things, such as `1 product` and `4,512 products`."""
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"


def usd(amount: Decimal | float) -> str:
    """Format dollars with two to four decimals, such as $1.40 and $0.014."""
    text = f"${amount:,.4f}"
    return text[:-2] + text[-2:].rstrip("0")


def spent_text(spent_usd: Decimal | float, possibly_charged_usd: Decimal | float) -> str:
    """Format dollars that were charged, with those that might be charged besides, if any."""
    besides = f" and possibly {usd(possibly_charged_usd)} more" if possibly_charged_usd else ""
    return f"{usd(spent_usd)}{besides}"


def sparkline(numbers: Sequence[float], lowest: float | None = None) -> str:
    """Draw numbers from the lowest, by default of their own, to the highest; equal ones halfway."""
    low = min(numbers) if lowest is None else lowest
    height, top = max(numbers) - low, len(_LEVELS) - 1
    shares = ((number - low) / height if height else 0.5 for number in numbers)
    return "".join(_LEVELS[round(share * top)] for share in shares)


class OnceLog:
    """Logs a line once for each reason. Threads may share it."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._lock = threading.Lock()
        self._told: set[object] = set()

    def say(self, reason: object, line: str) -> None:
        """Log the line, unless one was logged for the same reason."""
        with self._lock:
            is_new = reason not in self._told
            self._told.add(reason)
        if is_new:
            self._warn(line)
