"""Format text and numbers for terminals, logs, notifications, CSV files and tables."""

from __future__ import annotations

import csv
import json
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, TextIO

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
"""Matches text that spreadsheets evaluate as a formula, even with full-width characters."""
_LEVELS = "▁▂▃▄▅▆▇█"


def printable(text: str) -> str:
    """Escape control characters, including line breaks, so that terminals do not act on them."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def printable_lines(text: str) -> str:
    """Escape the control characters in each line."""
    return "\n".join(map(printable, text.split("\n")))


def write_csv(to: TextIO, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a header and rows as CSV that is safe to open in a spreadsheet.

    Text that a spreadsheet would evaluate is prefixed with an apostrophe. Times and dates are
    written in ISO format, and booleans as in JSON. Nulls are empty. List items are separated by
    spaces.
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
    """Format a number with its noun, such as `1 product` or `4,512 products`."""
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"


def time_text(time: datetime) -> str:
    """Format a time with seconds and without its time zone."""
    return f"{time:%Y-%m-%d %H:%M:%S}"


def usd(amount: Decimal | float) -> str:
    """Format dollars with two to four decimals, such as $1.40 or $0.014."""
    text = f"${amount:,.4f}"
    return text[:-2] + text[-2:].rstrip("0")


def spent_text(spent_usd: Decimal | float, possibly_charged_usd: Decimal | float) -> str:
    """Format the cost in dollars, and the additional cost that might be charged."""
    possibly = f" and possibly {usd(possibly_charged_usd)} more" if possibly_charged_usd else ""
    return f"{usd(spent_usd)}{possibly}"


def sparkline(numbers: Sequence[float], lowest: float | None = None) -> str:
    """Draw numbers as a line of bars, scaled from `lowest` to the maximum.

    `lowest` defaults to the minimum. Equal numbers are drawn at half height.
    """
    low = min(numbers) if lowest is None else lowest
    height, top = max(numbers) - low, len(_LEVELS) - 1
    shares = ((number - low) / height if height else 0.5 for number in numbers)
    return "".join(_LEVELS[round(share * top)] for share in shares)


class OnceLog:
    """Logs one warning for each reason. Instances are thread-safe."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._lock = threading.Lock()
        self._logged: set[object] = set()

    def warn(self, line: str, reason: object = None) -> None:
        """Log a line, unless `reason` has already been logged. `reason` defaults to the line."""
        with self._lock:
            is_new = (reason or line) not in self._logged
            self._logged.add(reason or line)
        if is_new:
            self._warn(line)
