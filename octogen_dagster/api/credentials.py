"""ApiKey: the API key, kept out of texts, pickles and responses."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import warnings
from typing import TYPE_CHECKING

from typing_extensions import Self

from octogen_dagster.errors import MissingAPIKeyError

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from octogen_dagster.api.http import Response

API_KEY_VARIABLES = ("OCTOGEN_PLATFORM_API_KEY", "OCTO_API_KEY")
"""The environment variables of the key; the first one that is set counts."""

_MASK = "[api key]"
_ANY_KEY = re.compile(r"octo_[a-z]+_[0-9a-f]{16,}_[A-Za-z0-9_-]{8,}")
# A shorter key is a placeholder that may be part of an ordinary word in a response.
_MIN_KEY_LENGTH = 8
_SANDBOX_KEYS = f"octo_live_{'0' * 32}_"


class ApiKey:
    """The API key, which adds itself to requests and appears nowhere else.

    Pickling drops the key; unpickling looks it up in the environment.

    Args:
        api_key: The key; by default `OCTOGEN_PLATFORM_API_KEY` of the environment, then
            `OCTO_API_KEY`, which Octogen has deprecated.

    Raises:
        MissingAPIKeyError: There is no key.
        ValueError: The key has blanks or characters that no key has.
    """

    def __init__(self, api_key: str | None = None) -> None:
        self._key = (api_key or "").strip() or _key_from_environment()
        del api_key  # no traceback that shows locals is to show it
        if not (self._key.isascii() and self._key.isprintable()) or " " in self._key:
            raise ValueError(
                "The Octogen API key holds blanks or characters that no key has: copy it again."
            )

    @property
    def authorization(self) -> str:
        """The value of the header `Authorization`."""
        return f"Bearer {self._key}"

    def __call__(self, request: httpx.Request) -> httpx.Request:
        """Add the key to a request and return it, as httpx expects of `auth`."""
        request.headers["Authorization"] = self.authorization
        return request

    def masked(self, text: str) -> str:
        """Return a text without the key, and without any other text of the form of one."""
        if len(self._key) >= _MIN_KEY_LENGTH:
            text = text.replace(self._key, _MASK)
        return masked_keys(text)

    def redacted(self, response: Response) -> Response:
        """Return the response without the key, where the service repeats it as it was sent."""
        headers = {name: self.masked(value) for name, value in response.headers.items()}
        content = response.content
        if len(self._key) >= _MIN_KEY_LENGTH:
            content = content.replace(self._key.encode(), _MASK.encode())
        return dataclasses.replace(response, headers=headers, content=content)

    def __repr__(self) -> str:
        return "ApiKey(...)"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()


def masked_keys(text: str) -> str:
    """Return a text without whatever has the form of an Octogen API key."""
    return _ANY_KEY.sub(_MASK, text)


def key_mask(api_key: str | None) -> Callable[[str], str]:
    """Return a function that removes the API key from a text, if there is one, and similar texts.

    Args:
        api_key: As for `ApiKey`.
    """
    try:
        return ApiKey(api_key).masked
    except (MissingAPIKeyError, ValueError):
        return masked_keys


def warn_of_written_key(api_key: str) -> None:
    """Warn once of a key that is written out in code.

    A key that is in the environment too came from there: Dagster makes its resources anew in a
    run, with the values of their variables. A sandbox's own key is no secret.
    """
    is_key = masked_keys(api_key) != api_key and not api_key.startswith(_SANDBOX_KEYS)
    if is_key and api_key not in os.environ.values():
        _warn_of_written_key()


@functools.cache  # once in a process
def _warn_of_written_key() -> None:
    warnings.warn(
        "An Octogen API key is written out in code, and Dagster shows it in its UI: put it into "
        f'an environment variable, and write api_key=dg.EnvVar("{API_KEY_VARIABLES[0]}"). Ask '
        "Octogen for a new key if others may have read it.",
        stacklevel=2,
    )


def _key_from_environment() -> str:
    """Return the key of the first variable that is set.

    Raises:
        MissingAPIKeyError: None is set.
    """
    keys = [key for name in API_KEY_VARIABLES if (key := os.environ.get(name, "").strip())]
    if not keys:
        raise MissingAPIKeyError
    if len(set(keys)) > 1:
        _warn_of_two_keys()
    return keys[0]


@functools.cache  # once in a process
def _warn_of_two_keys() -> None:
    used, ignored = API_KEY_VARIABLES
    warnings.warn(
        f"{used} and {ignored} hold different Octogen API keys, and {used} is used: unset one of "
        "them.",
        stacklevel=2,
    )
