"""The pages of Analytics Hub's list methods, with tokens that survive changes between pages."""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from octogen_dagster.sandbox.hub.names import Refusal

DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE = 100, 1000

_Item = TypeVar("_Item")


def page_of(
    items: Sequence[_Item], key: Callable[[_Item], str | int], request: Any, scope: str
) -> tuple[list[_Item], str]:
    """Return a page of `items` and the token of the next page, which is empty on the last.

    A token holds the key of the last item. An item that appears or goes away between two pages
    therefore makes no other item appear twice or not at all.

    Args:
        items: All items, in the order of `key`.
        key: Returns the key of an item.
        request: A list request, with `page_size` and `page_token`.
        scope: Text that tells lists apart. A token is valid only for the scope it was made for.

    Raises:
        Refusal: The page size is negative, or the token is not valid for this scope.
    """
    if request.page_size < 0:
        raise Refusal("INVALID_ARGUMENT", "page_size must not be negative.")
    size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    scope_hash = hashlib.sha256(scope.encode()).hexdigest()[:16]
    if request.page_token:
        last = _last_key(request.page_token, scope_hash)
        items = [item for item in items if key(item) > last]  # type: ignore[operator]
    page = list(items[:size])
    if len(items) <= size:
        return page, ""
    token = json.dumps([scope_hash, key(page[-1])]).encode()
    return page, base64.urlsafe_b64encode(token).decode()


def _last_key(token: str, scope_hash: str) -> str | int:
    try:
        token_hash, last = json.loads(base64.urlsafe_b64decode(token))
    except (ValueError, TypeError):
        token_hash = None
    if token_hash != scope_hash:
        raise Refusal("INVALID_ARGUMENT", "page_token is not valid for this request.")
    key: str | int = last
    return key
