"""A service without a list of catalogs, whose shops say which catalogs serve them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from tests.api.servers import RawServer, Received, http

Answer = list[bytes]


def catalog_of_shop(key: str, products: int = 3, **fields: Any) -> dict[str, Any]:
    """A catalog as `GET /domains/{host}` describes it."""
    return {
        "catalog": key,
        "catalogDisplayName": key.title(),
        "productCount": products,
        "computedAt": "2026-11-25T10:00:00Z",
        "fields": [],
        "price": None,
    } | fields


def shop(host: str, *catalogs: dict[str, Any]) -> Answer:
    """The answer of a shop that catalogs serve."""
    return http(body={"host": host, "catalogs": list(catalogs)})


def not_covered() -> Answer:
    return http(404, {"detail": "domain_not_covered"})


def shops(
    answers: Mapping[str, Answer | Callable[[Received], Iterable[bytes]]],
    products: Callable[[Received], Iterable[bytes]] = lambda _: http(500),
) -> RawServer:
    """A service of the current generation.

    Args:
        answers: What it answers for each host, or a function that does so.
        products: Answers requests that are not for a shop.
    """

    def respond(request: Received) -> Iterable[bytes]:
        path = request.target.removeprefix("/v1")
        if path == "/catalogs":
            return http(404, {"detail": "Not Found"})
        if not path.startswith("/domains/"):
            return products(request)
        answer = answers.get(unquote(path.removeprefix("/domains/")), not_covered())
        return answer(request) if callable(answer) else answer

    return RawServer(respond)
