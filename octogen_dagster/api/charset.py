"""The text of a body, by its bytes and the charset that its content type names."""

from __future__ import annotations

import codecs
import json
import re

_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
_QUADRATIC = frozenset({"punycode"})  # a codec of Python that takes hours for a large body
_USUAL = frozenset({"utf-8", "utf8", "us-ascii", "iso-8859-1"})


def decoded(content: bytes, content_type: str) -> str:
    """Decode a body, or its beginning: as JSON may be encoded, or else as its type says."""
    try:
        return codecs.getincrementaldecoder(json.detect_encoding(content))().decode(content)
    except UnicodeDecodeError:
        charset = _CHARSET.search(content_type)
    text = _decoded_as(charset[1], content) if charset else None
    return content.decode("utf-8", "replace") if text is None else text


def decoded_unusually(content: bytes, content_type: str) -> str | None:
    """Decode a body as its type says; None if that is not said, is no charset or a usual one."""
    charset = _CHARSET.search(content_type) if "harset" in content_type else None
    if charset is None or charset[1].lower() in _USUAL:
        return None
    return _decoded_as(charset[1], content)


def _decoded_as(charset: str, content: bytes) -> str | None:
    try:
        if codecs.lookup(charset).name in _QUADRATIC:
            return None
        return content.decode(charset, "replace")
    except (LookupError, UnicodeError):
        return None
