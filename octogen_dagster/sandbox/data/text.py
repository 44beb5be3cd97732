"""Text as a search compares it and as a URL shows it."""

import re
import unicodedata
from functools import cache


def word_list(text: str) -> list[str]:
    """Return the words of `text` in order, without case and accents."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return re.findall(r"\w+", "".join(c for c in plain if not unicodedata.combining(c)))


def words_of(text: str) -> frozenset[str]:
    """Return the words of `text` without case and accents, as keywords are compared."""
    return frozenset(word_list(text))


@cache
def slug_of(text: str) -> str:
    """Return `text` as a part of a URL, in ASCII."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "item"
