"""The request for the catalogs that serve a shop's host."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from octogen_dagster.api.models import DomainCoverageResponse
from octogen_dagster.api.responses import parsed
from octogen_dagster.errors import OctogenNotFoundError

if TYPE_CHECKING:
    from octogen_dagster.api.requester import Requester


async def fetch_domain(
    requester: Requester, host: str, base_url: str, *, paced: bool
) -> DomainCoverageResponse:
    """Get the catalogs that serve a host. The arguments and errors are those of the client.

    Args:
        requester: Sends the request.
        host: The host, such as "shop.example".
        base_url: The address of the service, for error messages.
        paced: True for one of many hosts, which obey the rate limiter.

    Raises:
        ValueError: The host is empty.
        OctogenError: The request failed.
    """
    if not host.strip():
        raise ValueError("host must not be empty")
    subject = f"Shop {host!r}"
    path = f"/domains/{quote(host.strip(), safe='')}"
    try:
        response = await requester.request("GET", path, subject, paced=paced)
    except OctogenNotFoundError as error:
        if error.detail == "domain_not_covered":
            raise
        raise error.with_message(
            f"{subject} cannot be read: {base_url} has no such operation (404). If the service has "
            "a list of catalogs, use GrantedCatalogs(); else NamedCatalogs(keys=[...])."
        ) from None
    return parsed(DomainCoverageResponse, response, subject)
