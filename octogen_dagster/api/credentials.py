"""The API key, kept out of texts, pickles and responses, and the URLs that may receive it."""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import os
import re
import warnings
from typing import TYPE_CHECKING, Self

from octogen_dagster.errors import MissingAPIKeyError

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx
    from pydantic import SecretStr

    from octogen_dagster.api.http import Response

KEY_VARIABLE = "OCTOGEN_PLATFORM_API_KEY"
DEPRECATED_KEY_VARIABLE = "OCTO_API_KEY"
API_KEY_VARIABLES = ("STOREROUTER_API_KEY", KEY_VARIABLE, DEPRECATED_KEY_VARIABLE)
"""The environment variables of the key; the first one that is set counts."""

_MASK = "[api key]"
_ANY_KEY = re.compile(r"octo_[a-z]+_[0-9a-f]{16,}_[A-Za-z0-9_-]{8,}")
# A shorter key is a placeholder that may be part of an ordinary word in a response.
_MIN_KEY_LENGTH = 8
_SANDBOX_KEYS = f"octo_live_{'0' * 32}_"

DEFAULT_HOST = "octogen.ai"
DEFAULT_BASE_URL = f"https://api.{DEFAULT_HOST}/v1"
HOST_VARIABLE = "OCTOGEN_HOST"
BASE_URL_VARIABLE = "OCTOGEN_BASE_URL"
_LABEL = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
_HOST = re.compile(rf"(?:{_LABEL}\.)*(?![0-9]){_LABEL}")
_SERVICES = ("api.", "mcp.", "auth.")
_MAX_URL_IN_MESSAGE = 200


class ApiKey:
    """The API key, which adds itself to requests and appears nowhere else.

    By default it is `STOREROUTER_API_KEY` of the environment, then `OCTOGEN_PLATFORM_API_KEY`, then
    `OCTO_API_KEY`, which Octogen has deprecated. Pickling drops the key; unpickling looks it up in
    the environment.
    """

    def __init__(self, api_key: str | None = None) -> None:
        self._key = (api_key or "").strip() or _key_from_environment()
        del api_key  # no traceback that shows locals is to show it
        if parsed_word(self._key) is None:
            raise ValueError(
                "The Octogen API key holds blanks or characters that no key has: copy it again."
            )

    @property
    def authorization(self) -> str:
        """The value of the header `Authorization`."""
        return f"Bearer {self._key}"

    def __call__(self, request: httpx.Request) -> httpx.Request:
        """Add the key to a request and return it, as `auth` of httpx and httpx2 does."""
        request.headers["Authorization"] = self.authorization
        return request

    def masked(self, text: str) -> str:
        """Return a text without the key, and without any other text of the form of one."""
        if len(self._key) >= _MIN_KEY_LENGTH:
            text = text.replace(self._key, _MASK)
        return masked_keys(text)

    def redacted(self, response: Response) -> Response:
        """Return the response without the key, where the service repeats it as it was sent."""
        # No local has the key, which a traceback might show.
        is_repeated = len(self._key) >= _MIN_KEY_LENGTH and (
            self._key.encode() in response.content
            or any(self._key in value for value in response.headers.values())
        )
        if not is_repeated:
            return response
        return dataclasses.replace(
            response,
            headers={name: self.masked(value) for name, value in response.headers.items()},
            content=response.content.replace(self._key.encode(), _MASK.encode()),
        )

    def __repr__(self) -> str:
        return "ApiKey(...)"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()


def parsed_word(value: object) -> SecretStr | None:
    """Return a word of printable ASCII without the blanks around it; None if it is none."""
    from pydantic import SecretStr

    text = value.strip() if isinstance(value, str) else ""
    is_word = text.isascii() and text.isprintable() and " " not in text
    return SecretStr(text) if text and is_word else None


def masked_keys(text: str) -> str:
    """Return a text without whatever has the form of an Octogen API key."""
    return _ANY_KEY.sub(_MASK, text)


def key_mask(api_key: str | None) -> Callable[[str], str]:
    """Return a function that removes the API key, if there is one, and similar texts."""
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
        f'an environment variable, and write api_key=dg.EnvVar("{KEY_VARIABLE}"). Ask '
        "Octogen for a new key if others may have read it.",
        stacklevel=2,
    )


def _key_from_environment() -> str:
    keys = {name: key for name in API_KEY_VARIABLES if (key := os.environ.get(name, "").strip())}
    if not keys:
        raise MissingAPIKeyError
    used, *others = keys
    for ignored in others:
        if keys[ignored] != keys[used]:
            _warn_of_two_keys(used, ignored)
    return keys[used]


@functools.cache  # once in a process
def _warn_of_two_keys(used: str, ignored: str) -> None:
    warnings.warn(
        f"{used} and {ignored} hold different Octogen API keys, and {used} is used: unset one of "
        "them.",
        stacklevel=2,
    )


def configured_host(host: str | None = None) -> str:
    """Return the host that Octogen's addresses are below: a given one, or `OCTOGEN_HOST`'s."""
    if host:
        return checked_host(host, "host")
    return checked_host(os.environ.get(HOST_VARIABLE) or DEFAULT_HOST, HOST_VARIABLE)


def configured_base_url(host: str | None = None) -> str:
    """Return the API's base URL: that of `OCTOGEN_BASE_URL`, or else the host's."""
    return os.environ.get(BASE_URL_VARIABLE) or host_base_url(host)


def host_base_url(host: str | None = None) -> str:
    """Return the API's base URL at the host."""
    return f"https://api.{configured_host(host)}/v1"


def host_mcp_url(host: str | None = None) -> str:
    """Return the URL of the MCP server at the host."""
    return f"https://mcp.{configured_host(host)}/mcp/"


def host_token_endpoint(host: str | None = None) -> str:
    """Return the URL of the token endpoint at the host."""
    return f"https://auth.{configured_host(host)}/oauth2/token"


def checked_host(host: str, setting: str) -> str:
    """Return a host name without the blanks around it."""
    host = host.strip()
    if not _HOST.fullmatch(host):
        raise ValueError(
            f"{setting} {_shown(host)} is not a host name: write the name alone, such as "
            f"{DEFAULT_HOST}, without https:// and without a port or path."
        )
    if host.lower().startswith(_SERVICES):
        raise ValueError(
            f"{setting} {_shown(host)} is the host of one service: leave out the beginning "
            f"{host.partition('.')[0]}., since api., mcp. and auth. are put before it."
        )
    return host


def address_origin(url: str | None, field: str, variable: str, host: str | None) -> str:
    """Return which setting an address comes from, for a person: the resource's, or a variable."""
    if url:
        return f"{field} of the resource"
    if os.environ.get(variable):
        return variable
    if host:
        return "host of the resource"
    return HOST_VARIABLE if os.environ.get(HOST_VARIABLE) else "the default"


def checked_base_url(base_url: str, masked: Callable[[str], str] = masked_keys) -> str:
    """Check the API's base URL and remove its trailing slash.

    It must have a scheme and a host, no credentials and no query, and must not send the key over
    plain HTTP to another machine. `masked` removes keys from a text; no message shows one.
    """
    if masked(base_url) != base_url:
        raise ValueError("base_url holds an API key: correct it, and pass the key as api_key")
    url = _checked(
        base_url,
        "base_url",
        protects="the API key",
        example=DEFAULT_BASE_URL,
        hint="; pass the key as api_key",
    )
    if url.port is not None and url.port > 65535:
        raise ValueError(f"base_url {_shown(base_url)} has a port above 65535: correct it")
    if "?" in base_url or "#" in base_url:
        raise ValueError(
            f"base_url {_shown(base_url)} must end with its path, without ? or #: remove them"
        )
    return str(url).rstrip("/")


def checked_url(url: str, setting: str) -> str:
    """Check a URL that a token is sent to; the name of its setting begins the error message."""
    url = url.strip()
    _checked(url, setting, protects="a token", example="https://…")
    return url


def may_use_proxy(url: str) -> bool:
    """True if requests to the URL may use a proxy of the environment.

    Plain HTTP stays on this machine, so that no proxy sees the key.
    """
    return url.lower().startswith("https:")


def _checked(url: str, setting: str, *, protects: str, example: str, hint: str = "") -> httpx.URL:
    import httpx

    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        # What httpx takes for the port may be part of a password.
        reason = "" if "@" in url else f": {masked_keys(str(error))[:_MAX_URL_IN_MESSAGE]}"
        raise ValueError(f"{setting} {_shown(url)} is not a URL{reason}") from None
    if parsed.userinfo:
        raise ValueError(f"{setting} must not carry a user or password{hint}.")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{setting} {_shown(url)} needs a scheme and a host, such as {example}")
    if parsed.scheme == "http" and not _is_loopback(parsed.host):
        raise ValueError(
            f"{setting} {_shown(url)} would send {protects} over plain http: use https. Plain http "
            "is accepted for this machine only (127.0.0.1, localhost)."
        )
    return parsed


def _shown(url: str) -> str:
    """Quote a URL for an error message, without what may be a password or a token."""
    without_user = re.sub(r"^(\w+://)?.*@", r"\1…@", url, count=1, flags=re.DOTALL)
    without_query = re.sub(r"([?#]).+", r"\1…", without_user, flags=re.DOTALL)
    return repr(masked_keys(without_query)[:_MAX_URL_IN_MESSAGE])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
