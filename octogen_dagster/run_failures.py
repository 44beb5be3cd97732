"""The retries of a run that reads from Octogen or BigQuery, and the errors without any."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from octogen_dagster.asset_defaults import Metadata
from octogen_dagster.errors import (
    MissingAPIKeyError,
    OctogenError,
    OctogenInsufficientCreditError,
    Persistence,
)

RETRY_POLICY = dg.RetryPolicy(max_retries=3, delay=10, backoff=dg.Backoff.EXPONENTIAL)
"""Three retries, after 10, 30 and 70 seconds: Dagster multiplies the delay by 2**n - 1."""


@contextmanager
def permanent_errors_fail() -> Iterator[None]:
    """Turn an error that a retry cannot fix into a failure that is not retried.

    Raises:
        dagster.Failure: The key is missing or refused, the budget or the credit is spent, the
            service refused the request or found nothing, a whole catalog is empty or shrank, the
            walks of a catalog overlap or leave out products, the partition's time is not the
            present, or BigQuery refused or a query exceeds a limit. The metadata links to where
            credit is bought.
    """
    try:
        yield
    except OctogenError as error:
        if error.persistence is not Persistence.PERMANENT:
            raise
        metadata = _top_up_link(error)
        # A key is missing where the run executes; how the code looked for it helps nobody.
        cause = None if isinstance(error, MissingAPIKeyError) else error
        raise dg.Failure(str(error), metadata=metadata, allow_retries=False) from cause


def _top_up_link(error: OctogenError) -> Metadata:
    if isinstance(error, OctogenInsufficientCreditError) and error.top_up_url:
        return {"octogen/top_up_url": dg.MetadataValue.url(error.top_up_url)}
    return {}
