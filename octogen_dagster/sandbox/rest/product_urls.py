"""Addresses of products, as the current generation reads them."""

import ipaddress
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

_TRACKING = ("utm_", "gclid", "fbclid")


class InvalidUrlError(Exception):
    """An address that is not looked up. Its text is the `detail` of the 422."""


class ProductUrl(NamedTuple):
    """The parts of an address that tell products apart.

    Attributes:
        host: The host, in lower case and without `www.`.
        path: The path.
        query: The parameters, sorted, without those for tracking.
    """

    host: str
    path: str
    query: tuple[tuple[str, str], ...]

    @property
    def normalized(self) -> str:
        """The stable address, by which the product can be looked up again."""
        return self._text(self.host, self.path, self.query)

    @property
    def canonical(self) -> str:
        """The address as the sandbox's shops write it."""
        return self._text(f"www.{self.host}", self.path, self.query)

    def loose_candidates(self) -> list[str]:
        """Return addresses as the shops write them, with lower case and known parameters only.

        The most similar one comes first.
        """
        path = self.path.lower()
        variant = tuple(pair for pair in self.query if pair[0] == "variant")
        host = f"www.{self.host}"
        return [self._text(host, path, variant), self._text(host, path, ())]

    @staticmethod
    def _text(host: str, path: str, query: tuple[tuple[str, str], ...]) -> str:
        return f"https://{host}{path}" + (f"?{urlencode(query)}" if query else "")


def normalized_host(host: str) -> str:
    """Return a host in lower case, without port, `www.` and a final dot."""
    return host.strip().lower().partition(":")[0].rstrip(".").removeprefix("www.")


def parse_product_url(text: str) -> ProductUrl:
    """Return the parts of an address.

    Raises:
        InvalidUrlError: It is not the address of a page on the public web.
    """
    try:
        parts = urlsplit(text.strip())
        host = parts.hostname
    except ValueError:
        raise InvalidUrlError("invalid_product_url") from None
    if parts.scheme not in ("http", "https") or not host:
        raise InvalidUrlError("invalid_product_url")
    if parts.username is not None or _is_local(host):
        raise InvalidUrlError("unsafe_url")
    if "." not in host:
        raise InvalidUrlError("invalid_product_url")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    query = sorted(pair for pair in pairs if not pair[0].lower().startswith(_TRACKING))
    return ProductUrl(normalized_host(host), parts.path, tuple(query))


def _is_local(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal"))
