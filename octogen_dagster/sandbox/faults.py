"""The faults of the sandbox's REST API."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args
from urllib.parse import urlsplit

from octogen_dagster.sandbox.fault_model import (
    ERROR_STATUS,
    SECONDS,
    BaseFault,
    ValueRule,
    is_number,
)

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
_SEARCH = "/products/search"
_SELECTORS = ("times", "path", "page", "retry_after", "detail")
_NEED_CURSOR: frozenset[FaultKind] = frozenset({"loop_cursor", "restart_cursor"})


@dataclass(frozen=True)
class Fault(BaseFault):
    """Something that goes wrong with the requests it selects.

    ```
    Fault("status", 503, times=3, retry_after=1)
    Fault("latency", 0.2)
    Fault("restart_cursor", page=4, times=1)
    Fault("status", 504, path="/products/lookup", detail="product_lookup_timed_out")
    ```

    | kind | value | what the client sees |
    | --- | --- | --- |
    | `latency` | seconds | the response comes that much later |
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

    The cursor faults hit only searches that carry a cursor. Latency is added to other faults. Of
    those, the first one that selects a request hits it, so faults with `times` that are listed
    one after the other take effect one after the other.

    Attributes:
        kind: The kind of fault.
        value: The value, as in the table.
        times: The number of requests it hits; None for all.
        path: Hit only requests with this path, such as `/products/search`.
        page: Hit only searches, and of each only this page, counted from 1.
        retry_after: The `Retry-After` header of a `status`: whole seconds or an HTTP date. A 429
            always has one; its default is 1.
        detail: The `detail` of a `status`, such as `product_lookup_timed_out`; by default that of
            the contract.

    Raises:
        ValueError: The kind is unknown, or an argument does not fit the kind.
    """

    KINDS = _KINDS
    VALUES: ClassVar[Mapping[str, ValueRule]] = {
        "latency": SECONDS,
        "price": ValueRule("a number, 0 or more, such as 9.99", is_number),
        "status": ERROR_STATUS,
        "redirect": ValueRule(
            "an http or https URL",
            lambda value: isinstance(value, str) and urlsplit(value).scheme in ("http", "https"),
        ),
    }

    kind: FaultKind
    value: float | int | str | None = None
    times: int | None = None
    path: str | None = None
    page: int | None = None
    retry_after: int | str | None = None
    detail: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.page is not None and self.page < 1:
            raise ValueError(f"page must be 1 or more, not {self.page}")
        if self.path is not None and not self.path.startswith("/"):
            raise ValueError(f"path must begin with /, such as {_SEARCH}, not {self.path!r}")
        if self.page is not None and self.path not in (None, _SEARCH):
            raise ValueError(f"page selects searches: leave out the path {self.path!r}")
        if self.retry_after is not None and self.kind != "status":
            raise ValueError(f"retry_after goes with status, not with {self.kind}")
        if self.detail is not None and self.kind != "status":
            raise ValueError(f"detail goes with status, not with {self.kind}")

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Parse a fault such as `status=503,times=3,path=/products/search`.

        Raises:
            ValueError: The text is not a fault. The message says what is wrong.
        """
        parts = dict(_key_and_value(part) for part in re.split(r",(?=[a-z_]+(?:[=,]|$))", text))
        kinds = [kind for kind in _KINDS if kind in parts]
        unknown = [name for name in parts if name not in _KINDS and name not in _SELECTORS]
        try:
            if unknown:
                raise ValueError(
                    f"unknown word {unknown[0]!r}: use one of the faults {', '.join(_KINDS)} "
                    f"and any of the selectors {', '.join(_SELECTORS)}"
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
                detail=parts.get("detail"),
            )
        except ValueError as problem:
            raise ValueError(f"fault {text!r}: {problem}") from None

    def selects(self, path: str, page: int, has_cursor: bool) -> bool:
        """Return True if the selectors and the kind of this fault fit a request.

        Args:
            path: The path below the base URL.
            page: The page of a search, counted from 1; 1 for any other request.
            has_cursor: True if the request carries a valid cursor.
        """
        return (
            (self.path is None or self.path == path)
            and (self.page is None or (path == _SEARCH and self.page == page))
            and (has_cursor or self.kind not in _NEED_CURSOR)
        )


def _key_and_value(part: str) -> tuple[str, str | None]:
    key, equals, value = part.partition("=")
    return key.strip(), value if equals else None


def _value_from_text(kind: FaultKind, text: str | None) -> float | int | str | None:
    """Convert text to a number if the kind needs one; text that is no number stays text."""
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
