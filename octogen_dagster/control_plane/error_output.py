"""The error output of a program, made fit for an error message: short, printable, no secrets."""

from __future__ import annotations

import re

from octogen_dagster.api.printable import printable

MAX_SIZE = 4_000
"""The bytes at the end of an error output that are worth keeping."""

_MAX_LENGTH = 300
_MASK = "[masked]"
_NAMED = re.compile(
    r"""(?i)(\bbearer\s+|(?:token|secret|passw(?:or)?d|key|authorization)["']?\s*[:=]\s*["']?"""
    r"""(?:bearer\s+)?)[^\s"']+"""
)
_WORD = re.compile(r"(?=[^\s\d]*\d)[A-Za-z0-9_.~+/=-]{12,}|[A-Za-z0-9_~+=-]{20,}")


def shown_error_output(content: bytes) -> str:
    """Return the end of an error output without the words in it that may be secrets.

    These are words after `token=` and the like, long words, and shorter ones with a digit. A word
    that is not a secret may be masked, too.

    Args:
        content: The error output, or at most `MAX_SIZE` bytes of its end.
    """
    if len(content) >= MAX_SIZE:  # the first word may be the end of a secret
        content = b"".join(content.split(maxsplit=1)[1:])
    text = " ".join(content.decode("utf-8", "replace").split())
    text = _WORD.sub(_MASK, _NAMED.sub(rf"\1{_MASK}", text))
    return printable(text[-_MAX_LENGTH:], _MAX_LENGTH)
