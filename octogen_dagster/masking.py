"""Secrets in settings: how they are recognized, refused where they are written out, and masked."""

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
"""A user before a bucket; before a container of Azure it is one, and the account follows."""
_FILE_NAMES = ("credentials", "jwt_private_key")
"""Ends of names of settings whose value may be the path of a file."""
_SECRET_BEGINNINGS = ("{", "MII")
"""How a secret begins in place of such a path: as JSON, or a private key without its header."""
_BETWEEN_WORDS = re.compile(r"[\s=:@/?&;,'\"]+")
_MAX_SHORT = 5
"""The length of secrets that may also be a part of a word of an error by chance."""
_NAMES = {"dbname", "host", "hostaddr", "motherduck_token", "password", "port", "user"}
"""The words of a connection string that say what the next one is."""


def is_secret(name: str, value: Any) -> bool:
    """True if a setting has a secret written out, by its name; a path of a file is none."""
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
    """True if a URL has a password, a signature or the id of a bucket's key."""
    return any(part.search(text) for part in (_URL_PASSWORD, _URL_OPTION, _BUCKET_USER))


def refuse_secrets(settings: Mapping[str, Any]) -> None:
    """Refuse a secret that is written out, which Dagster would show in the UI."""
    for name, value in settings.items():
        if is_secret(name, value):
            raise ValueError(
                f"{name} looks like a secret, and Dagster would show it in the UI. Set an "
                f'environment variable and write "{name}": dg.EnvVar("NAME_OF_THE_VARIABLE"), in '
                'YAML "{{ env.NAME_OF_THE_VARIABLE }}", instead of its value, or leave it out and '
                "let the library find its credentials."
            )


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return a text with `***` for secrets, in any spelling that an error may quote.

    These are the secret itself, percent-encoded, decoded or with escapes, and its words: some
    libraries quote what they take for a host or a database, which is a part of a password.
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
