"""KeyMask: finds an API key in what a server sent, in each form that is read as the key."""

from __future__ import annotations

import re

MASK = "[api key]"

# Octogen's documented form; what comes after the hexadecimal id is secret, what comes before it
# is shown by Octogen too.
_FIRST_PART = r"octo_[a-z]+_[0-9a-f]{16,}_"
_SECOND_PART = r"[A-Za-z0-9_-]{8,}"
_ANY_KEY = re.compile(_FIRST_PART + _SECOND_PART)
# A shorter key is a placeholder that may be part of an ordinary word in a response.
_MIN_SECRET_LENGTH = 8
# Repetitions are bounded, so that no text makes the search slow.
_ESCAPE = r"\\{1,4}(?:u00|x)"
_GAP = rf"(?:\0|{_ESCAPE}00){{0,3}}"  # between two characters of UTF-16 or UTF-32


def masked_keys(text: str) -> str:
    """Return a text without whatever has the form of an Octogen API key."""
    return _ANY_KEY.sub(MASK, text)


class KeyMask:
    r"""Masks one API key, and the secret part of it alone.

    It is found as it is, with any of its characters escaped as in JSON (`\u006f`), in a `repr`
    (`\x6f`) or in a URL (`%6f`), and in UTF-16 and UTF-32.

    Args:
        key: The API key, in ASCII. One of fewer than eight characters is not masked.
    """

    def __init__(self, key: str) -> None:
        prefix, secret = _parts(key)
        self._is_masked = len(key) >= _MIN_SECRET_LENGTH
        pattern = _characters(secret)
        if prefix:
            pattern = f"(?:{_characters(prefix)}{_GAP})?{pattern}"
        self._in_text = re.compile(pattern)
        self._in_bytes = re.compile(pattern.encode())
        self._secret = secret.encode()
        codes = "|".join(sorted({f"{ord(character):02x}" for character in secret}))
        self._escape = re.compile(rf"\\(?:u00|x)(?i:{codes})".encode())

    def text(self, text: str) -> str:
        """Return a text without the key, and without any other text of the form of one."""
        if self._is_masked:
            text = self._in_text.sub(MASK, text)
        return masked_keys(text)

    def content(self, content: bytes) -> bytes:
        """Return bytes without the key: the same object if they do not have it.

        Of a body in UTF-16 or UTF-32 that has the key, only the ASCII characters remain legible.
        """
        if not self._may_be_in(content):
            return content
        narrow = content.replace(b"\0", b"")
        masked, count = self._in_bytes.subn(MASK.encode(), narrow)
        return masked if count else content

    def _may_be_in(self, content: bytes) -> bool:
        """True if a slower look is necessary; a page costs three searches for a constant here."""
        return self._is_masked and (
            self._secret in content
            or b"\0" in content
            or (b"\\" in content and self._escape.search(content) is not None)
        )


def _parts(key: str) -> tuple[str, str]:
    """The part of a key that is no secret, and the secret."""
    match = re.fullmatch(f"({_FIRST_PART})({_SECOND_PART})", key)
    return (match[1], match[2]) if match else ("", key)


def _characters(text: str) -> str:
    r"""A pattern for a text of which any character may be escaped."""
    return _GAP.join(
        rf"(?:{re.escape(character)}|(?:{_ESCAPE}|%)(?i:{ord(character):02x}))"
        for character in text
    )
