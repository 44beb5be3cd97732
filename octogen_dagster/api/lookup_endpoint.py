"""LookupEndpoint: sends a lookup in the generation of the contract that the service speaks."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from octogen_dagster.api.responses import refused_fields
from octogen_dagster.errors import OctogenValidationError

if TYPE_CHECKING:
    from octogen_dagster.api.http import Response
    from octogen_dagster.api.refusals import Refusals
    from octogen_dagster.api.requester import Requester

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

    async def send(self, url: str, subject: str, *, paced: bool = False) -> Response:
        """Request the product at a merchant's URL.

        Args:
            url: The product's page at the merchant.
            subject: What is requested; begins error messages.
            paced: True for one of many lookups, which obey the rate limiter.

        Raises:
            OctogenError: The request failed.
        """
        async with self._refusals.learned_once() if paced else contextlib.nullcontext():
            return await self._send(url, subject, paced=paced)

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
