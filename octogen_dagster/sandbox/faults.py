"""Faults on request: what can go wrong between a client and the service.

This module says which request a fault hits. What a hit request gets instead is in
`answers` and in `app`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from threading import Lock
from typing import Literal, get_args
from urllib.parse import urlsplit

FaultKind = Literal[
    "latency",
    "status",
    "redirect",
    "html",
    "cut",
    "truncate",
    "loop_cursor",
    "restart_cursor",
    "unknown_fields",
    "wrong_type",
    "price",
]

_KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
_SELECTORS = ("times", "path", "page", "retry_after")
_NEED_CURSOR: frozenset[FaultKind] = frozenset({"loop_cursor", "restart_cursor"})


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with the requests it selects.

    ```
    Fault("status", 503, times=3, retry_after=1)
    Fault("latency", 0.2)
    Fault("restart_cursor", page=4, times=1)
    ```

    | kind | value | what the client sees |
    | --- | --- | --- |
    | `latency` | seconds | the answer comes that much later |
    | `status` | 400 to 599 | an error with the contract's body |
    | `redirect` | a URL | a 307 to it |
    | `html` | | a 200 with a web page |
    | `cut` | | the connection closes in the middle of the body |
    | `truncate` | | a complete response whose body is half a JSON document |
    | `loop_cursor` | | `nextCursor` is the cursor that was sent |
    | `restart_cursor` | | page 1, although a cursor was sent |
    | `unknown_fields` | | fields no contract knows, on the page, its items and their brands |
    | `wrong_type` | | one product whose `currentPrice` is not a number |
    | `price` | 0 or more | one product with that `currentPrice` |

    The cursor faults hit searches that carry a cursor, and no others. Latency comes on top
    of other faults; of those, the first that selects a request hits it, so storms that are
    listed one after the other come one after the other.

    Attributes:
        kind: What goes wrong.
        value: As in the table.
        times: How many requests it hits; None for all.
        path: Only requests with this path, such as `/products/search`.
        page: Only this page of a walk, counted from 1.
        retry_after: The `Retry-After` of a `status`: whole seconds or an HTTP date. A 429
            always has one, 1 by default.

    Raises:
        ValueError: The parts do not make sense together.
    """

    kind: FaultKind
    value: float | int | str | None = None
    times: int | None = None
    path: str | None = None
    page: int | None = None
    retry_after: int | str | None = None

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"unknown fault {self.kind!r}; there are {', '.join(_KINDS)}")
        _check_value(self.kind, self.value)
        for name in ("times", "page"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} must be 1 or more, not {number}")
        if self.path is not None and not self.path.startswith("/"):
            raise ValueError(f"path must begin with /, such as /products/search: {self.path!r}")
        if self.retry_after is not None and self.kind != "status":
            raise ValueError(f"retry_after goes with status, not with {self.kind}")

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Read a fault from text such as `status=503,times=3,path=/products/search`.

        Raises:
            ValueError: The text is not a fault; the message says why and what is.
        """
        parts = dict(_key_and_value(part) for part in re.split(r",(?=[a-z_]+(?:[=,]|$))", text))
        kinds = [kind for kind in _KINDS if kind in parts]
        unknown = [name for name in parts if name not in _KINDS and name not in _SELECTORS]
        try:
            if unknown:
                raise ValueError(
                    f"unknown word {unknown[0]!r}; faults are {', '.join(_KINDS)}; "
                    f"they are narrowed by {', '.join(_SELECTORS)}"
                )
            if len(kinds) != 1:
                raise ValueError(f"name exactly one of {', '.join(_KINDS)}")
            return cls(
                kinds[0],
                _value_from_text(kinds[0], parts[kinds[0]]),
                times=_whole_number("times", parts.get("times")),
                path=parts.get("path"),
                page=_whole_number("page", parts.get("page")),
                retry_after=_seconds_or_date(parts.get("retry_after")),
            )
        except ValueError as problem:
            raise ValueError(f"fault {text!r}: {problem}") from None

    def selects(self, path: str, page: int, has_cursor: bool) -> bool:
        """Whether a request is one that this fault is about.

        Args:
            path: Below the base URL.
            page: Counted from 1; 1 for a request that is not part of a walk.
            has_cursor: Whether it carries a valid cursor.
        """
        return (
            (self.path is None or self.path == path)
            and (self.page is None or self.page == page)
            and (has_cursor or self.kind not in _NEED_CURSOR)
        )


class Faults:
    """The faults in force, and how many more requests each may hit."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._lock = Lock()
        self._in_force = [_InForce(fault, fault.times) for fault in faults]

    def inject(self, fault: Fault) -> None:
        with self._lock:
            self._in_force.append(_InForce(fault, fault.times))

    def clear(self) -> None:
        with self._lock:
            self._in_force.clear()

    def hit(self, path: str, page: int, has_cursor: bool) -> list[Fault]:
        """The faults that hit a request now: any number of latencies and at most one other.

        The arguments are those of `Fault.selects`.
        """
        hits: list[Fault] = []
        with self._lock:
            for entry in self._in_force:
                fault = entry.fault
                if entry.left == 0 or not fault.selects(path, page, has_cursor):
                    continue
                if fault.kind == "latency" or all(hit.kind == "latency" for hit in hits):
                    hits.append(fault)
                    entry.left = None if entry.left is None else entry.left - 1
        return hits


@dataclass
class _InForce:
    fault: Fault
    left: int | None


def _check_value(kind: FaultKind, value: float | int | str | None) -> None:
    match kind:
        case "latency":
            if not isinstance(value, int | float) or value < 0:
                raise ValueError(f"latency needs seconds, 0 or more, such as 0.2; not {value!r}")
        case "price":
            if not isinstance(value, int | float) or not value >= 0:
                raise ValueError(f"price needs a number, 0 or more, such as 9.99; not {value!r}")
        case "status":
            if not isinstance(value, int) or not 400 <= value <= 599:
                raise ValueError(f"status needs a number from 400 to 599, not {value!r}")
        case "redirect":
            if not isinstance(value, str) or urlsplit(value).scheme not in ("http", "https"):
                raise ValueError(f"redirect needs an http or https URL, not {value!r}")
        case _:
            if value is not None:
                raise ValueError(f"{kind} takes no value, so not {value!r}")


def _key_and_value(part: str) -> tuple[str, str | None]:
    key, equals, value = part.partition("=")
    return key.strip(), value if equals else None


def _value_from_text(kind: FaultKind, text: str | None) -> float | int | str | None:
    """A number where the kind wants one; what is no number stays text and is refused later."""
    if text is None or kind not in ("latency", "status", "price"):
        return text
    try:
        return int(text) if kind == "status" else float(text)
    except ValueError:
        return text


def _seconds_or_date(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdecimal() else text


def _whole_number(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal():
        raise ValueError(f"{name} needs a whole number, not {text!r}")
    return int(text)
