"""Where tokens may be sent: https, or plain http on this machine."""

from __future__ import annotations

import ipaddress


def checked_url(url: str, setting: str) -> str:
    """A URL that a token may be sent to.

    Args:
        url: As it was configured.
        setting: What it is, to begin the message with.

    Raises:
        ValueError: It is no URL, carries credentials, or would send a token over plain http to
            another machine.
    """
    import httpx

    url = url.strip()
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{setting} {url[:200]!r} is not a URL: {error}") from None
    if parsed.userinfo:
        raise ValueError(f"{setting} must not carry a user or password.")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{setting} {url[:200]!r} needs a scheme and a host, as https://…")
    if parsed.scheme == "http" and not _is_loopback(parsed.host):
        raise ValueError(
            f"{setting} {url[:200]!r} would send a token over plain http: use https. Plain http is "
            "accepted for this machine only (127.0.0.1, localhost)."
        )
    return url


def may_use_proxy(url: str) -> bool:
    """Whether a proxy of the environment may be used: plain http stays on this machine."""
    return url.lower().startswith("https:")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
