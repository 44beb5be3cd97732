"""IndexRun: when a catalog was last indexed, decoded fast for thousands of catalogs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import msgspec

from octogen_dagster.api.models import MerchantCatalogSummary
from octogen_dagster.api.responses import parsed

if TYPE_CHECKING:
    import httpx


class IndexRun(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The last index run of a catalog that the API key may read.

    Attributes:
        catalog: The catalog's key.
        last_indexed_at: When the catalog was last indexed, with a time zone; None if never.
    """

    catalog: Annotated[str, msgspec.Meta(min_length=1)]
    last_indexed_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


_INDEX_RUNS = msgspec.json.Decoder(list[IndexRun])


def parsed_index_runs(response: httpx.Response, subject: str) -> list[IndexRun]:
    """Parse the body of `GET /catalogs` as index runs.

    Args:
        response: A response with a success status.
        subject: What was requested; begins the error message.

    Raises:
        OctogenResponseError: The body is not JSON or not a list of catalogs.
    """
    try:
        return _INDEX_RUNS.decode(response.content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # The models accept more than the contract allows, or say what is wrong.
        summaries = parsed(list[MerchantCatalogSummary], response, subject)
        return [IndexRun(entry.catalog, entry.last_indexed_at) for entry in summaries]
