"""SearchEndpoint: sends a search in the generation of the contract that the service speaks."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Literal

from octogen_dagster.api.responses import refused_fields
from octogen_dagster.api.search import CURRENT_FIELDS
from octogen_dagster.errors import OctogenValidationError

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from octogen_dagster.api.http import Response
    from octogen_dagster.api.refusals import Refusals
    from octogen_dagster.api.requester import Requester

Generation = Literal["seed", "current"]
_PATH = "/products/search"
_RESPELLED = frozenset({"catalog", "understand"})
_UNKNOWN = "extra_forbidden"
"""The type of the refusal of a field that the service does not know."""


class SearchEndpoint:
    """`POST /products/search` of a service whose generation is learned from its refusals.

    The seed generation takes one catalog as `catalog`, the current one takes a list as `catalogs`.
    The seed generation does not know `understand` and never understands keywords; the current one
    understands them unless `understand` is false. So a search is first sent with `catalog` and
    `understand`. After a 422 that names `catalog` it is sent again with `catalogs`, and after one
    that names an `understand` of false, without it. So are all later ones. A 422 is not charged.

    Args:
        requester: Sends the requests.
        refusals: What the service refuses; clients may share it.
    """

    def __init__(self, requester: Requester, refusals: Refusals) -> None:
        self._requester = requester
        self._refusals = refusals

    @property
    def generation(self) -> Generation:
        """The generation of the service; the seed's until a response shows otherwise."""
        return "current" if "catalog" in self._refusals.fields else "seed"

    async def send(self, body: Mapping[str, Any], subject: str, *, paced: bool = False) -> Response:
        """Request one page of a search.

        Args:
            body: The search and the page, as `SearchRequest.body` says it.
            subject: What is requested; begins error messages.
            paced: True for a page of a bulk read, which obeys the rate limiter.

        Raises:
            OctogenValidationError: The service refuses a field, as one of the seed generation
                refuses those that only the current one has.
            OctogenError: The request failed otherwise.
        """
        async with self._refusals.learned_once() if paced else contextlib.nullcontext():
            return await self._send(body, subject, paced=paced)

    async def _send(self, body: Mapping[str, Any], subject: str, *, paced: bool) -> Response:
        refused = self._refusals.fields
        while True:
            sent = _spelled(body, refused)
            try:
                response = await self._requester.request("POST", _PATH, subject, sent, paced=paced)
            except OctogenValidationError as error:
                named = refused_fields(error.detail)
                # A service that refuses `catalog` is of the current generation. If it was of the
                # seed's before, what that one refused counts no more.
                refused = frozenset({"catalog"}) if "catalog" in named else refused | named
                if _spelled(body, refused) != sent:
                    continue
                if unknown := _unknown_fields(error.detail):
                    raise _older_contract_error(error, subject, unknown) from None
                raise
            if refused != self._refusals.fields:
                self._refusals.fields = refused & _RESPELLED
            return response


def _spelled(body: Mapping[str, Any], refused: Container[str]) -> dict[str, Any]:
    """Return a body without those refused fields that can be said otherwise."""
    spelled = dict(body)
    if "catalog" in refused and "catalog" in spelled:
        spelled["catalogs"] = [spelled.pop("catalog")]
    if "understand" in refused and spelled.get("understand") is False:
        del spelled["understand"]
    return spelled


def _unknown_fields(detail: Any) -> list[str]:
    """Return the fields of the current generation that a service does not know."""
    entries = detail if isinstance(detail, list) else ()
    unknown = refused_fields(
        [each for each in entries if isinstance(each, dict) and each.get("type") == _UNKNOWN]
    )
    return [name for name in CURRENT_FIELDS if name in unknown]


def _older_contract_error(
    error: OctogenValidationError, subject: str, unknown: list[str]
) -> OctogenValidationError:
    return error.with_message(
        f"{subject}: the service speaks the older contract, which has no {', '.join(unknown)} "
        "(422). Search without, or read a service of the current contract."
    )
