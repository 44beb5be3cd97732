"""The options of an object store, whose secrets come from the environment."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import dagster as dg

from octogen_dagster.errors import OctogenSnapshotError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SECRET_WORDS = {
    *("key", "keys", "secret", "secrets", "token", "tokens", "credential", "credentials"),
    *("password", "passwd", "pwd", "pass", "passphrase", "authorization", "auth", "bearer", "sas"),
    *("apikey", "accesskey", "secretkey"),
}
_MASK = "***"
_URL_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@")
_IN_A_FILE = {"key", "keys", "token", "tokens", "credential", "credentials"}
"""Secrets that some libraries also take as the path of a file; a password may begin as one does."""
_NO_SECRETS = re.compile(r"anon|google_default|cloud|browser|cache|.*\.json", re.IGNORECASE)
"""Values of gcsfs's `token`: ways to find credentials, and the path of a file of credentials."""
_PATH = re.compile(r"(~|\.{1,2}|[A-Za-z]:)?[/\\][\w.@ /\\-]+")
"""A path with a folder. It has neither + nor =, which most base64 texts have."""
_KINDS_AND_PLACES = {"type", "file", "filename", "path"}
"""The last words of `auth_type` or `key_file`, which are no secrets themselves."""


def check_no_secrets(options: Mapping[str, Any]) -> None:
    """Check that no option with the name of a secret has its value written out.

    Dagster shows the configuration of resources in the UI and stores it.

    Args:
        options: The options as a user wrote them; `dg.EnvVar` may stand anywhere for a value.

    Raises:
        ValueError: An option that looks like a secret is not a `dg.EnvVar`.
    """
    for name, value in _literals(options):
        if _holds_secret(name, value):
            raise ValueError(
                f"The storage option {name} looks like a secret, and Dagster would show it in the "
                f'UI. Set an environment variable and write "{name.rpartition(".")[2]}": '
                'dg.EnvVar("NAME_OF_THE_VARIABLE") instead of its value, or leave the option out '
                "and let the object store's library find its credentials."
            )


def mask_secrets(text: str, options: Mapping[str, Any]) -> str:
    """Return a text without the secrets of resolved options, which a library's error may quote."""
    for name, value in _literals(dict(options)):
        if _holds_secret(name, value):
            text = text.replace(value, _MASK).replace(quote(value, safe=""), _MASK)
    return text


def masked_error(error: Exception, options: Mapping[str, Any]) -> tuple[str, Exception | None]:
    """Return what a library's error says, and the error as a cause unless it quotes a secret.

    Args:
        error: The error.
        options: The resolved options of the object store.
    """
    text = str(error)
    masked = mask_secrets(text, options)
    return masked or type(error).__name__, error if masked == text else None


def resolve_options(options: Any) -> Any:
    """Return the options with the values of the environment variables that they name.

    Args:
        options: The options, or a part of them. Dagster hands `dg.EnvVar("X")` to a run as
            `{"env": "X"}`.

    Raises:
        OctogenSnapshotError: An environment variable is not set.
    """
    if variable := _variable(options):
        value = os.environ.get(variable)
        if value is None:
            raise OctogenSnapshotError(
                f"The storage options name the environment variable {variable}, which is not set. "
                "Set it where the run executes."
            )
        return value
    if isinstance(options, dict):
        return {name: resolve_options(value) for name, value in options.items()}
    if isinstance(options, list | tuple):
        return [resolve_options(value) for value in options]
    return options


def _variable(value: Any) -> str | None:
    """The name of the environment variable that a value stands for; None if it does not."""
    if isinstance(value, dg.EnvVar):
        return value.env_var_name
    if isinstance(value, dict) and set(value) == {"env"} and isinstance(value["env"], str):
        return value["env"]
    return None


def _literals(options: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Each text in the options, with the path of names that leads to it."""
    if _variable(options):
        return
    if isinstance(options, dict):
        for key, value in options.items():
            yield from _literals(value, f"{name}.{key}" if name else str(key))
    elif isinstance(options, list | tuple):
        for value in options:
            yield from _literals(value, name)
    elif isinstance(options, str | bytes) and options:
        yield name, options if isinstance(options, str) else options.decode(errors="replace")


def _holds_secret(name: str, value: str) -> bool:
    if _URL_PASSWORD.search(value):
        return True
    words = _secret_words(name)
    if not words or _NO_SECRETS.fullmatch(value):
        return False
    if _words(name)[-1] in _KINDS_AND_PLACES:
        return "-----BEGIN" in value  # the content of the file in place of its name
    return not (words <= _IN_A_FILE and _PATH.fullmatch(value))


def _secret_words(name: str) -> set[str]:
    """The words for a secret in an option's own name and in the names around it."""
    if "kms" in name.lower():  # the name of a key, not the key
        return set()
    words = set(_words(name))
    connection_string = {"connection", "string"}
    return words & _SECRET_WORDS or (connection_string if connection_string <= words else set())


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]
