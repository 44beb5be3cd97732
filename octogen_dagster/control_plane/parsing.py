"""Parsers for values that a service, a command or a file may give in any form."""

from __future__ import annotations

import json
import math
from typing import Any

from pydantic import SecretStr

from octogen_dagster.errors import OctogenMCPAuthenticationError


def parsed_token(value: object) -> SecretStr | None:
    """Return a token: one word of printable ASCII, without the blanks around it.

    Returns:
        The token, or None if the value is not one.
    """
    text = value.strip() if isinstance(value, str) else ""
    is_word = text.isascii() and text.isprintable() and " " not in text
    return SecretStr(text) if text and is_word else None


def required_token(token: SecretStr | None, subject: str) -> SecretStr:
    """Return the token that `parsed_token` found.

    Args:
        token: The token.
        subject: Where it comes from; the error message begins with it.

    Raises:
        OctogenMCPAuthenticationError: There is none.
    """
    if token is None:
        raise OctogenMCPAuthenticationError(
            f"{subject} is not a token: a token is one word, without blanks."
        )
    return token


def parsed_seconds(value: object) -> float | None:
    """Return a number of seconds, or None if the value is not a finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


def parsed_object(content: bytes) -> dict[str, Any]:
    """Return a JSON object, or an empty one if the content is none."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
