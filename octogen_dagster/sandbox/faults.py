"""The sandbox's faults: their kinds, their text format and which requests they hit.

`gateway` applies the faults.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal, get_args

FaultKind = Literal[
    "latency",
    "status",
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
_SEARCH = "/products/search"
_SELECTORS = ("times", "path", "page", "catalog", "retry_after", "detail")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and value >= 0


_VALUES: Mapping[FaultKind, tuple[str, Callable[[Any], bool]]] = {
    "latency": ("seconds, 0 or more, such as 0.2", _is_number),
    "price": ("a number, 0 or more, such as 9.99", _is_number),
    "status": (
        "a number from 400 to 599",
        lambda value: isinstance(value, int) and 400 <= value <= 599,
    ),
}
"""Valid values by kind. Other kinds take no value."""


@dataclass(frozen=True)
class Fault:
    """A failure injected into matching requests.

    ```
    Fault("status", 503, times=3, retry_after=1)
    Fault("latency", 0.2)
    Fault("restart_cursor", page=4, times=1)
    Fault("status", 504, path="/products/lookup", detail="product_lookup_timed_out")
    Fault("cut", catalog="northpeak", times=1)
    ```

    | kind | value | what the client sees |
    | --- | --- | --- |
    | `latency` | seconds | a delayed response |
    | `status` | 400 to 599 | an error with the contract's body |
    | `html` | | a 200 with a web page |
    | `cut` | | a connection that closes in the middle of the body |
    | `truncate` | | a complete response whose body is half a JSON document |
    | `loop_cursor` | | a `nextCursor` equal to the cursor that was sent |
    | `restart_cursor` | | page 1, although a cursor was sent |
    | `unknown_fields` | | unknown fields on the page, its items and their brands |
    | `wrong_type` | | one product whose `currentPrice` is not a number |
    | `price` | 0 or more | one product with that `currentPrice` |

    The cursor faults hit only searches that send a cursor. If several faults match a request, the
    first one applies, so several faults with `times` take effect in order. `latency` is applied in
    addition to another fault.

    Attributes:
        kind: The kind of fault.
        value: The value, as in the table.
        times: Number of requests to hit. None means all requests.
        path: Hit only requests with this path, such as `/products/search`.
        page: Hit only this page of searches, counted from 1.
        catalog: Hit only searches that name this catalog, and lookups for its products.
        retry_after: The `Retry-After` header for `status`, in whole seconds or as an HTTP date. A
            429 always has this header, which is 1 by default.
        detail: The `detail` for `status`, such as `product_lookup_timed_out`. Defaults to the text
            in the contract.

    Raises:
        ValueError: The kind is unknown, or an argument does not fit the kind.
    """

    kind: FaultKind
    value: float | str | None = None
    times: int | None = None
    path: str | None = None
    page: int | None = None
    catalog: str | None = None
    retry_after: int | str | None = None
    detail: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"unknown fault {self.kind!r}: use one of {', '.join(_KINDS)}")
        description, accepts = _VALUES.get(self.kind, ("", None))
        if accepts is None and self.value is not None:
            raise ValueError(f"{self.kind} takes no value: remove {self.value!r}")
        if accepts is not None and not accepts(self.value):
            raise ValueError(f"{self.kind} needs {description}, not {self.value!r}")
        for name, number in (("times", self.times), ("page", self.page)):
            if number is not None and not (isinstance(number, int) and number >= 1):
                raise ValueError(f"{name} must be a whole number, 1 or more, not {number!r}")
        if self.path is not None and not self.path.startswith("/"):
            raise ValueError(f"path must start with /, such as {_SEARCH}, not {self.path!r}")
        if self.page is not None and self.path not in (None, _SEARCH):
            raise ValueError(f"page applies to searches only: remove the path {self.path!r}")
        for name in ("retry_after", "detail"):
            if getattr(self, name) is not None and self.kind != "status":
                raise ValueError(f"{name} applies to status only, not to {self.kind}")

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Parse a fault such as `status=503,times=3,path=/products/search`.

        Raises:
            ValueError: The text is not a valid fault.
        """
        parts: dict[str, Any] = {}
        for part in re.split(r",(?=[a-z_]+(?:[=,]|$))", text):
            name, equals, value = part.partition("=")
            is_text = not equals or name in ("path", "catalog", "detail")
            parts[name.strip()] = (value or None) if is_text else _number_or_text(value)
        kinds = [kind for kind in _KINDS if kind in parts]
        unknown = [name for name in parts if name not in _KINDS and name not in _SELECTORS]
        try:
            if unknown:
                raise ValueError(
                    f"unknown word {unknown[0]!r}: use a fault ({', '.join(_KINDS)}) "
                    f"and optional selectors ({', '.join(_SELECTORS)})"
                )
            if len(kinds) != 1:
                raise ValueError(f"name exactly one of {', '.join(_KINDS)}")
            return cls(kinds[0], parts.pop(kinds[0]), **parts)
        except ValueError as problem:
            raise ValueError(f"fault {text!r}: {problem}") from None

    def selects(self, path: str, page: int, has_cursor: bool, catalogs: Iterable[str]) -> bool:
        """Return True if a request matches this fault's selectors and kind."""
        return (
            (self.path is None or self.path == path)
            and (self.page is None or (path == _SEARCH and self.page == page))
            and (self.catalog is None or self.catalog in catalogs)
            and (has_cursor or self.kind not in ("loop_cursor", "restart_cursor"))
        )


def _number_or_text(text: str) -> float | str:
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


class ActiveFaults:
    """The active faults, and the number of requests that each fault has hit."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._lock = Lock()
        self._hits = [(fault, 0) for fault in faults]

    def inject(self, fault: Fault) -> None:
        with self._lock:
            self._hits.append((fault, 0))

    def clear(self) -> None:
        with self._lock:
            self._hits.clear()

    def hit(self, path: str, page: int, has_cursor: bool, catalogs: Iterable[str]) -> list[Fault]:
        """Return the faults that hit a request: `latency` and at most one other fault.

        Count the hits.
        """
        hits: list[Fault] = []
        with self._lock:
            for place, (fault, times) in enumerate(self._hits):
                if times == fault.times or not fault.selects(path, page, has_cursor, catalogs):
                    continue
                if fault.kind == "latency" or all(hit.kind == "latency" for hit in hits):
                    hits.append(fault)
                    self._hits[place] = (fault, times + 1)
        return hits
