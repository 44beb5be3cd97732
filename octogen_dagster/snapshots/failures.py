"""Which errors of a run a retry cannot mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from octogen_dagster.errors import MissingAPIKeyError, OctogenAPIError, OctogenPastPartitionError

RETRY_POLICY = dg.RetryPolicy(max_retries=3, delay=10, backoff=dg.Backoff.EXPONENTIAL)
"""The retries of a run that reads from the service: after 10, 20 and 40 seconds."""

_PERMANENT_STATUSES = {401, 402, 403, 404, 422}


@contextmanager
def permanent_errors_fail() -> Iterator[None]:
    """Turn an error that a retry cannot mend into a failure that is not retried.

    Raises:
        dagster.Failure: The key is missing or refused, the credit is spent, the request is wrong,
            or the partition's time is over.
    """
    try:
        yield
    except (MissingAPIKeyError, OctogenPastPartitionError) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    except OctogenAPIError as error:
        if error.status_code not in _PERMANENT_STATUSES:
            raise
        raise dg.Failure(str(error), allow_retries=False) from error
