"""The URLs that receive a key or a token: where they come from, and that they are safe."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import TYPE_CHECKING

from octogen_dagster.api.credentials import masked_keys

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

DEFAULT_HOST = "octogen.ai"
DEFAULT_BASE_URL = f"https://api.{DEFAULT_HOST}/v1"
HOST_VARIABLE = "OCTOGEN_HOST"
BASE_URL_VARIABLE = "OCTOGEN_BASE_URL"
_LABEL = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
_HOST = re.compile(rf"(?:{_LABEL}\.)*(?![0-9]){_LABEL}")
_SERVICES = ("api.", "mcp.", "auth.")
_MAX_URL_IN_MESSAGE = 200


def configured_host(host: str | None = None) -> str:
    """Return the host that Octogen's addresses are below: a given one, or that of `OCTOGEN_HOST`.

    Raises:
        ValueError: It is not a host name. The message shows no key.
    """
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
    """Return a host name without the blanks around it.

    Raises:
        ValueError: It is not a host name. The message shows no key.
    """
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
    """Return which setting an address comes from, for a person.

    Args:
        url: The address that the resource names, if it does.
        field: The field that names it.
        variable: The environment variable that may name it.
        host: The host that the resource names, if it does.
    """
    if url:
        return f"{field} of the resource"
    if os.environ.get(variable):
        return variable
    if host:
        return "host of the resource"
    return HOST_VARIABLE if os.environ.get(HOST_VARIABLE) else "the default"


def checked_base_url(base_url: str, masked: Callable[[str], str] = masked_keys) -> str:
    """Check the API's base URL and remove its trailing slash.

    Args:
        base_url: The base URL.
        masked: Removes API keys from a text.

    Raises:
        ValueError: The URL has no scheme or host, carries credentials, has a query, or would send
            the key over plain HTTP to another machine. The message shows no key.
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
    """Check a URL that a token is sent to.

    Args:
        url: The configured URL; blanks around it are removed.
        setting: The name of the setting; begins the error message.

    Raises:
        ValueError: The URL is malformed, carries credentials, or would send a token over plain
            HTTP to another machine.
    """
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

    shown = _shown(url)
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        # What httpx takes for the port may be part of a password.
        reason = "" if "@" in url else f": {masked_keys(str(error))[:_MAX_URL_IN_MESSAGE]}"
        raise ValueError(f"{setting} {shown} is not a URL{reason}") from None
    if parsed.userinfo:
        raise ValueError(f"{setting} must not carry a user or password{hint}.")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{setting} {shown} needs a scheme and a host, such as {example}")
    if parsed.scheme == "http" and not _is_loopback(parsed.host):
        raise ValueError(
            f"{setting} {shown} would send {protects} over plain http: use https. Plain http is "
            "accepted for this machine only (127.0.0.1, localhost)."
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
