"""The API key and the URLs that it is sent to.

The key never appears in messages, pickles or responses.
"""

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
"""The API key's environment variables, in order of precedence."""

_MASK = "[api key]"
_ANY_KEY = re.compile(r"octo_[a-z]+_[0-9a-f]{16,}_[A-Za-z0-9_-]{8,}")
# A shorter key is a placeholder, and masking it could mangle ordinary words in a response.
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
    """The API key for requests, which is never shown, logged or pickled.

    If no key is passed, the key is read from the environment variable `STOREROUTER_API_KEY`,
    `OCTOGEN_PLATFORM_API_KEY` or `OCTO_API_KEY`, in this order. Octogen has deprecated
    `OCTO_API_KEY`. A pickle does not contain the key. Unpickling reads the key from the
    environment.
    """

    def __init__(self, api_key: str | None = None) -> None:
        self._key = (api_key or "").strip() or _key_from_environment()
        del api_key  # keep it out of tracebacks that show locals
        if parsed_word(self._key) is None:
            raise ValueError(
                "The Octogen API key contains spaces or invalid characters. Copy it again."
            )

    @property
    def authorization(self) -> str:
        """The value of the `Authorization` header."""
        return f"Bearer {self._key}"

    def __call__(self, request: httpx.Request) -> httpx.Request:
        """Add the key to a request. An `ApiKey` can be the `auth` argument in httpx and httpx2."""
        request.headers["Authorization"] = self.authorization
        return request

    def masked(self, text: str) -> str:
        """Mask this key in the text, and anything else that looks like an Octogen API key."""
        if len(self._key) >= _MIN_KEY_LENGTH:
            text = text.replace(self._key, _MASK)
        return masked_keys(text)

    def redacted(self, response: Response) -> Response:
        """Mask the key in a response, in case the service sent it back."""
        # Keep the key out of locals, because tracebacks might show them.
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
    """Return the stripped value, or None if it is not a single printable ASCII word."""
    from pydantic import SecretStr

    text = value.strip() if isinstance(value, str) else ""
    is_word = text.isascii() and text.isprintable() and " " not in text
    return SecretStr(text) if text and is_word else None


def masked_keys(text: str) -> str:
    """Mask anything in the text that looks like an Octogen API key."""
    return _ANY_KEY.sub(_MASK, text)


def key_mask(api_key: str | None) -> Callable[[str], str]:
    """Return a function that masks the configured API key and anything that looks like a key."""
    try:
        return ApiKey(api_key).masked
    except (MissingAPIKeyError, ValueError):
        return masked_keys


def warn_of_written_key(api_key: str) -> None:
    """Warn once if an API key is hard-coded.

    A key that is also in the environment does not count as hard-coded. Dagster resolves `EnvVar`
    when it creates resources in a run. Sandbox keys cause no warning, because they are not secret.
    """
    is_key = masked_keys(api_key) != api_key and not api_key.startswith(_SANDBOX_KEYS)
    if is_key and api_key not in os.environ.values():
        _warn_of_written_key()


@functools.cache  # once in a process
def _warn_of_written_key() -> None:
    warnings.warn(
        "An Octogen API key is hard-coded, so Dagster shows the key in the UI. Put it into an "
        f'environment variable and pass api_key=dg.EnvVar("{KEY_VARIABLE}"). If others might have '
        "seen the key, ask Octogen for a new one.",
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
        f"{used} and {ignored} contain different Octogen API keys. {used} takes precedence. Unset "
        "one of the variables.",
        stacklevel=2,
    )


def configured_host(host: str | None = None) -> str:
    """Return the parent host for Octogen's services.

    The argument `host` takes precedence over `OCTOGEN_HOST`. The default is `octogen.ai`.
    """
    if host:
        return checked_host(host, "host")
    return checked_host(os.environ.get(HOST_VARIABLE) or DEFAULT_HOST, HOST_VARIABLE)


def configured_base_url(host: str | None = None) -> str:
    """Return `OCTOGEN_BASE_URL`, or the API's base URL at the host if the variable is not set."""
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
    """Return a valid host name without surrounding spaces, or raise ValueError."""
    host = host.strip()
    if not _HOST.fullmatch(host):
        raise ValueError(
            f"{setting} {_shown(host)} is not a host name. Pass only the name, such as "
            f"{DEFAULT_HOST}, without https://, port or path."
        )
    if host.lower().startswith(_SERVICES):
        raise ValueError(
            f"{setting} {_shown(host)} begins with the prefix of a service. Remove "
            f"'{host.partition('.')[0]}.'. The prefixes api., mcp. and auth. are added "
            "automatically."
        )
    return host


def address_origin(url: str | None, field: str, variable: str, host: str | None) -> str:
    """Return the name of the setting that determines a URL, for messages."""
    if url:
        return f"{field} of the resource"
    if os.environ.get(variable):
        return variable
    if host:
        return "host of the resource"
    return HOST_VARIABLE if os.environ.get(HOST_VARIABLE) else "the default"


def checked_base_url(base_url: str, masked: Callable[[str], str] = masked_keys) -> str:
    """Validate the API's base URL and remove its trailing slash.

    The URL must have a scheme and a host. The URL cannot contain credentials or a query. Plain HTTP
    is allowed only for this machine, to protect the API key. `masked` masks API keys in text, so
    that error messages never show a key.
    """
    if masked(base_url) != base_url:
        raise ValueError("base_url contains an API key. Remove it, and pass the key as api_key.")
    url = _checked(
        base_url,
        "base_url",
        protects="the API key",
        example=DEFAULT_BASE_URL,
        hint=" Pass the key as api_key.",
    )
    if url.port is not None and url.port > 65535:
        raise ValueError(f"base_url {_shown(base_url)} has a port above 65535. Correct the port.")
    if "?" in base_url or "#" in base_url:
        raise ValueError(
            f"base_url {_shown(base_url)} has a query or a fragment. Remove the part that begins "
            "with ? or #."
        )
    return str(url).rstrip("/")


def checked_url(url: str, setting: str) -> str:
    """Validate a URL that a token is sent to. Error messages begin with the setting's name."""
    url = url.strip()
    _checked(url, setting, protects="a token", example="https://example.com")
    return url


def may_use_proxy(url: str) -> bool:
    """True if requests to the URL can use a proxy from the environment.

    Plain HTTP is allowed only for this machine and never uses a proxy, because the proxy would see
    the key.
    """
    return url.lower().startswith("https:")


def _checked(url: str, setting: str, *, protects: str, example: str, hint: str = "") -> httpx.URL:
    import httpx

    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        # httpx might quote part of a password as the port.
        reason = "" if "@" in url else f": {masked_keys(str(error))[:_MAX_URL_IN_MESSAGE]}"
        raise ValueError(f"{setting} {_shown(url)} is not a valid URL{reason}") from None
    if parsed.userinfo:
        raise ValueError(f"{setting} must not contain a user name or password.{hint}")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{setting} {_shown(url)} needs a scheme and a host, such as {example}.")
    if parsed.scheme == "http" and not _is_loopback(parsed.host):
        raise ValueError(
            f"{setting} {_shown(url)} would send {protects} over plain HTTP. Use https. Plain HTTP "
            "is allowed only for this machine (127.0.0.1, localhost)."
        )
    return parsed


def _shown(url: str) -> str:
    """Quote a URL for an error message, with passwords and tokens removed."""
    without_user = re.sub(r"^(\w+://)?.*@", r"\1…@", url, count=1, flags=re.DOTALL)
    without_query = re.sub(r"([?#]).+", r"\1…", without_user, flags=re.DOTALL)
    return repr(masked_keys(without_query)[:_MAX_URL_IN_MESSAGE])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
