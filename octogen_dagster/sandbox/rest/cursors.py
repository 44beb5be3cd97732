"""Cursors: signed positions in a search, valid only for the search that they came from."""

import base64
import binascii
import hashlib
import hmac
import json
from typing import NamedTuple

_SIGNATURE_BYTES = 16


class Position(NamedTuple):
    """The start of a page.

    Attributes:
        page: The number of the page, counted from 1.
        place: The index of its first product.
        catalog: The key of the first catalog from which that index is shown.
        query: The effective query of page 1, as JSON; empty if the request alone says it.
    """

    page: int
    place: int
    catalog: str
    query: str = ""


class Cursors:
    """Converts positions to opaque text and back.

    Args:
        secret: The key of the signatures.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def encode(self, position: Position, search: bytes) -> str:
        """Return a cursor for `position` in the search with this fingerprint."""
        payload = json.dumps(position).encode()
        signed = self._signature(payload, search) + payload
        return base64.urlsafe_b64encode(signed).decode().rstrip("=")

    def decode(self, cursor: str, search: bytes) -> Position | None:
        """Return the position; None if the cursor is not valid for this search."""
        try:
            padded = cursor + "=" * (-len(cursor) % 4)
            signed = base64.b64decode(padded, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        signature, payload = signed[:_SIGNATURE_BYTES], signed[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._signature(payload, search)):
            return None
        return Position(*json.loads(payload))

    def _signature(self, payload: bytes, search: bytes) -> bytes:
        return hmac.digest(self._secret, payload + b"\0" + search, hashlib.sha256)[
            :_SIGNATURE_BYTES
        ]
