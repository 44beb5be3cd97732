"""The error output of a program, made fit for an error message: short, printable, no secrets."""

from __future__ import annotations

import re

MAX_SIZE = 4_000
"""The bytes at the end of an error output that are worth keeping."""

_MAX_LENGTH = 300
_MASK = "[masked]"
_MIN_SECRET_LENGTH = 6
_NAMED = re.compile(
    r"""(?i)(\bbearer\s+|(?:token|secret|passw(?:or)?d|key|authorization)["']?\s*[:=]\s*["']?"""
    r"""(?:bearer\s+)?)[^\s"']+"""
)
_WORD = re.compile(
    r"""
    (?=[^\s\d]*\d) [A-Za-z0-9_.~+/=-]{12,}  # with a digit
    | (?!(?:[A-Z_]+|[a-z_]+)(?![\w~+=-])) (?=[A-Za-z]*(?:[_~+=-]|[a-z][A-Z])) [A-Za-z0-9_~+=-]{12,}
    | (?!(?=[A-Za-z]*_)(?:[A-Z_]+|[a-z_]+)(?![\w~+=-])) [A-Za-z0-9_~+=-]{20,}
    """,
    re.VERBOSE,
)


def shown_error_output(content: bytes, output: bytes = b"") -> str:
    """Return the end of an error output without the words in it that may be secrets.

    These are words of the output, words after `token=` and the like, long words, and shorter ones
    that look made up. Some words that are no secrets are masked, too, but not the codes of gRPC
    and OAuth.

    Args:
        content: The error output, or at most `MAX_SIZE` bytes of its end.
        output: What the program printed besides, which may be a token.
    """
    if len(content) >= MAX_SIZE:  # the first word may be the end of a secret
        content = b"".join(content.split(maxsplit=1)[1:])
    for word in sorted(set(output.split()), key=len, reverse=True):
        if len(word) >= _MIN_SECRET_LENGTH:
            content = content.replace(word, _MASK.encode())
    text = " ".join(content.decode("utf-8", "replace").split())
    text = _WORD.sub(_MASK, _NAMED.sub(rf"\1{_MASK}", text))
    text = text[-_MAX_LENGTH:].strip()
    return text if text.isprintable() else repr(text)
