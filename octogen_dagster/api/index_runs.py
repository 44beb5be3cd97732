"""When each catalog was indexed last: all a sensor looks at, and quick for thousands of them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import msgspec

from octogen_dagster.api.models import MerchantCatalogSummary
from octogen_dagster.api.responses import parsed

if TYPE_CHECKING:
    import httpx


class IndexRun(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The last index run of a catalog this key may read.

    Attributes:
        catalog: Its key.
        last_indexed_at: When its last index run was, if it had one; with a time zone.
    """

    catalog: Annotated[str, msgspec.Meta(min_length=1)]
    last_indexed_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


_INDEX_RUNS = msgspec.json.Decoder(list[IndexRun])


def read_index_runs(response: httpx.Response, subject: str) -> list[IndexRun]:
    """The catalogs of an answer.

    Args:
        response: The answer, read.
        subject: What was asked for, to begin an error message with.

    Raises:
        OctogenResponseError: It is not JSON or not of that shape.
    """
    try:
        return _INDEX_RUNS.decode(response.content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # The models take more than the contract says, or name what is wrong.
        summaries = parsed(list[MerchantCatalogSummary], response, subject)
        return [IndexRun(entry.catalog, entry.last_indexed_at) for entry in summaries]
