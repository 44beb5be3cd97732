"""The API key, and how it is kept out of sight."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from typing_extensions import Self

from octogen_dagster.errors import MissingAPIKeyError

if TYPE_CHECKING:
    import httpx

_FRAMING_HEADERS = (b"content-encoding", b"transfer-encoding", b"content-length")
# Anything shorter is a stand-in for a key and may well be part of a word in an answer.
_MIN_SECRET_LENGTH = 8
API_KEY_VARIABLES = ("OCTO_API_KEY", "OCTOGEN_PLATFORM_API_KEY")


class ApiKey:
    """The API key: puts itself on a request and shows itself nowhere else.

    Pickling drops the key; where it is unpickled, it is looked up in the environment again.

    Args:
        api_key: The key; without it the environment is asked (`OCTO_API_KEY`, then
            `OCTOGEN_PLATFORM_API_KEY`).

    Raises:
        MissingAPIKeyError: There is none.
        ValueError: It holds characters that no key has.
    """

    def __init__(self, api_key: str | None = None) -> None:
        candidates = (api_key, *(os.environ.get(name) for name in API_KEY_VARIABLES))
        key = next((key for key in candidates if key and key.strip()), None)
        if key is None:
            raise MissingAPIKeyError
        key = key.strip()
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ValueError(
                "The Octogen API key holds blanks or characters that no key has: copy it again."
            )
        self._key = key

    def authorize(self, request: httpx.Request) -> None:
        """Put the key on a request."""
        request.headers["Authorization"] = f"Bearer {self._key}"

    def __call__(self, request: httpx.Request) -> httpx.Request:
        """The request with the key on it; what httpx takes as `auth`."""
        self.authorize(request)
        return request

    def redacted(self, response: httpx.Response) -> httpx.Response:
        """The answer with the key taken off its request, and out of its text should it echo it."""
        response.request.headers.pop("Authorization", None)
        response.next_request = None  # a redirect's, with the key on it
        key, mask = self._key.encode(), b"[api key]"
        echoes = key in response.content or any(key in value for _, value in response.headers.raw)
        if not echoes or len(key) < _MIN_SECRET_LENGTH:
            return response
        import httpx

        return httpx.Response(
            response.status_code,
            headers=[
                (name, value.replace(key, mask))
                for name, value in response.headers.raw
                if name.lower() not in _FRAMING_HEADERS
            ],
            content=response.content.replace(key, mask),
            request=response.request,
        )

    def __repr__(self) -> str:
        return "ApiKey(...)"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()
