"""LookupEndpoint: sends a lookup in the generation of the contract that the service speaks."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

from octogen_dagster.api.models import MerchantProductUrlLookupResponse
from octogen_dagster.api.responses import parsed, refused_fields
from octogen_dagster.errors import OctogenValidationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from octogen_dagster.api.http import Response
    from octogen_dagster.api.refusals import Refusals
    from octogen_dagster.api.requester import Requester

_Value = TypeVar("_Value")

_PATH = "/products/lookup"
_OPTIONS = {"resolutionMode": "index_only", "matchMode": "strict"}


class LookupEndpoint:
    """`POST /products/lookup` for products of the index only.

    By default the current generation reads a product that is not in the index from its page, and
    matches an address loosely, so that a removed variant resolves to another one. A lookup asks for
    neither. The seed generation does neither, and may refuse the two fields with a 422 that names
    them: the lookup is sent again without them, and so are all later ones. A 422 is not charged.

    Args:
        requester: Sends the requests.
        refusals: What the service refuses; clients may share it.
    """

    def __init__(self, requester: Requester, refusals: Refusals) -> None:
        self._requester = requester
        self._refusals = refusals

    async def look_up(
        self, url: str, read: Callable[[Response, str], _Value], *, paced: bool = False
    ) -> _Value:
        """Request the product at a merchant's URL, and read the response.

        Args:
            url: The product's page at the merchant.
            read: Turns the response into a value; its second argument begins error messages.
            paced: True for one of many lookups, which obey the rate limiter.

        Raises:
            ValueError: The URL is empty.
            OctogenError: The request failed.
        """
        if not url.strip():
            raise ValueError("url must not be empty")
        subject = f"The product at {url}"
        async with self._refusals.learned_once() if paced else contextlib.nullcontext():
            response = await self._send(url, subject, paced=paced)
        return read(response, subject)

    async def _send(self, url: str, subject: str, *, paced: bool) -> Response:
        while True:
            options = {
                name: value for name, value in _OPTIONS.items() if name not in self._refusals.fields
            }
            try:
                return await self._requester.request(
                    "POST", _PATH, subject, {"url": url, **options}, paced=paced
                )
            except OctogenValidationError as error:
                refused = refused_fields(error.detail) & options.keys()
                if not refused:
                    raise
            self._refusals.fields |= refused


def parsed_lookup(response: Response, subject: str) -> MerchantProductUrlLookupResponse:
    """Parse the response to a lookup.

    Args:
        response: A response with a success status.
        subject: What was looked up; begins the error message.

    Raises:
        OctogenResponseError: The body is not the response to a lookup.
    """
    return parsed(MerchantProductUrlLookupResponse, response, subject)
