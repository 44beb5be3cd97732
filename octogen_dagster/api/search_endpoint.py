"""SearchEndpoint: sends a search in the generation of the contract that the service speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from octogen_dagster.api.responses import field_path
from octogen_dagster.errors import OctogenValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from octogen_dagster.api.requester import Requester
    from octogen_dagster.api.search_request import SearchRequest

Generation = Literal["seed", "current"]
_PATH = "/products/search"


class SearchEndpoint:
    """`POST /products/search` of a service whose generation is learned from its responses.

    The seed generation takes one catalog as `catalog`, the current one takes a list as
    `catalogs`. The first search of a catalog sends `catalog`. A 422 that names this field means
    the current generation: the search is sent again with `catalogs`, and so are all later ones.
    A 422 is not charged.

    Args:
        requester: Sends the requests.

    Attributes:
        generation: The generation of the service; the seed's until a response shows otherwise.
    """

    def __init__(self, requester: Requester) -> None:
        self._requester = requester
        self.generation: Generation = "seed"

    async def send(
        self, request: SearchRequest, subject: str, *, paced: bool = False
    ) -> httpx.Response:
        """Request one page of a search.

        Args:
            request: The search and the page.
            subject: What is requested; begins error messages.
            paced: True for a page of a bulk read, which obeys the rate limiter.

        Raises:
            OctogenError: The request failed.
        """
        body = request.body()
        if "catalog" not in body:
            return await self._post(body, subject, paced)
        if self.generation == "seed":
            try:
                return await self._post(body, subject, paced)
            except OctogenValidationError as error:
                if not _refuses_catalog(error.detail):
                    raise
        response = await self._post(_current_body(body), subject, paced)
        self.generation = "current"
        return response

    async def _post(self, body: Mapping[str, Any], subject: str, paced: bool) -> httpx.Response:
        return await self._requester.request("POST", _PATH, subject, body, paced=paced)


def _current_body(body: Mapping[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in body.items() if name != "catalog"}
    return rest | {"catalogs": [body["catalog"]]}


def _refuses_catalog(detail: Any) -> bool:
    """True if the detail of a 422 names the field `catalog`."""
    return isinstance(detail, list) and any(
        isinstance(entry, dict) and field_path(entry)[-1:] == ["catalog"] for entry in detail
    )
