"""Detect, reject and mask secrets in settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote

_SECRET_WORDS = {
    *("authorization", "bearer", "credential", "credentials", "key", "password", "sas", "secret"),
    *("token", "string", "apikey", "auth", "passphrase", "pwd"),
}
_URL_PASSWORD = re.compile(r"://[^/@\s]*:(?!\d+/)[^@\s]+@")
_URL_OPTION = re.compile(
    r"[?&;][\w.-]*(?:sig|pass|passwd|password|token|secret|key)=", re.IGNORECASE
)
_BUCKET_USER = re.compile(r"\b(?:s3[an]?|gcs|gs|oss)://[^/\s]*@", re.IGNORECASE)
"""Matches bucket URLs with a user name, but not Azure URLs, where a container name precedes `@`."""
_FILE_NAMES = ("credentials", "jwt_private_key")
"""Suffixes of setting names whose value can be a file path."""
_SECRET_BEGINNINGS = ("{", "MII")
"""Prefixes that tell a secret from a file path: JSON, or a private key without a header."""
_BETWEEN_WORDS = re.compile(r"[\s=:@/?&;,'\"]+")
_MAX_SHORT = 5
"""Secrets up to this length are masked only as whole words, because they can be parts of words."""
_NAMES = {"dbname", "host", "hostaddr", "motherduck_token", "password", "port", "user"}
"""Keywords in connection strings. These keywords are not secret, so they are not masked."""


def is_secret(name: str, value: Any) -> bool:
    """True if a setting looks like a plain-text secret. File paths do not count as secrets."""
    text = str(value)
    if "-----BEGIN" in text or has_url_secret(text):
        return True
    words = set(re.split(r"[\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()))
    return bool(
        words & _SECRET_WORDS
        and not words & {"kms", "file", "path", "uri", "type"}
        and not (
            name.lower().endswith(_FILE_NAMES) and not text.lstrip().startswith(_SECRET_BEGINNINGS)
        )
        and text.lower() not in {"", "true", "false"}
    )


def has_url_secret(text: str) -> bool:
    """True if a URL contains a password, a signature or a bucket access key ID."""
    return any(part.search(text) for part in (_URL_PASSWORD, _URL_OPTION, _BUCKET_USER))


def refuse_secrets(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for a plain-text secret, which Dagster would show in the UI."""
    for name, value in settings.items():
        if is_secret(name, value):
            raise ValueError(
                f"{name} looks like a secret, which Dagster would show in the UI. Set an "
                f'environment variable and write "{name}": dg.EnvVar("NAME_OF_THE_VARIABLE"), or '
                '"{{ env.NAME_OF_THE_VARIABLE }}" in YAML. Alternatively, omit the setting and let '
                "the library find its credentials."
            )


def masked(text: str, secrets: Iterable[str]) -> str:
    """Replace secrets in text with `***`, in every form that an error message might contain.

    These forms are the secret itself, its percent-encoded, decoded and escaped forms, and its
    individual words. A library that parses a password incorrectly can quote a part of the password
    as the host or database.
    """
    plain = {text for secret in secrets for text in (secret, unquote(secret))}
    plain |= {word for each in plain for word in _BETWEEN_WORDS.split(each)}
    found = plain | {quote(each) for each in plain} | {quote(each, safe="") for each in plain}
    found |= {repr(each)[1:-1] for each in found}
    for each in sorted(found - _NAMES - {""}, key=len, reverse=True):
        pattern = re.escape(each)
        if len(each) <= _MAX_SHORT:
            pattern = rf"(?<!\w){pattern}(?!\w)"
        text = re.sub(pattern, "***", text)
    return text
