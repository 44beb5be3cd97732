"""Cursors: where a walk continues, signed so that only the search it came from can use it."""

import base64
import binascii
import hashlib
import hmac
import json
from typing import NamedTuple

_SIGNATURE_BYTES = 16


class Position(NamedTuple):
    """Where a page starts.

    Attributes:
        page: The number of the page within its walk, from 1.
        place: The first place in the quality order that it may show.
        catalog: The first catalog key at that place.
    """

    page: int
    place: int
    catalog: str


class Cursors:
    """Turns positions into opaque text and back."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def encode(self, position: Position, search: bytes) -> str:
        """A cursor for `position` of the search with this fingerprint."""
        payload = json.dumps(position).encode()
        signed = self._signature(payload, search) + payload
        return base64.urlsafe_b64encode(signed).decode().rstrip("=")

    def decode(self, cursor: str, search: bytes) -> Position | None:
        """The position, or None for a cursor that was not made here for this search."""
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
