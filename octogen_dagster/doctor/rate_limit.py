"""Compares Octogen's rate limit with the limit of the Dagster pool of the assets."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from octogen_dagster.dagster_parts import POOL
from octogen_dagster.doctor.findings import Finding

if TYPE_CHECKING:
    import dagster as dg

SUBJECT = "Octogen rate limit"
_SHARE = 0.2
"""The share of the requests a minute below which the pool's limit has to stay."""
_DEFAULT_LIMIT = 8


def compare_limits(
    requests_per_minute: float | None, instance: dg.DagsterInstance | None
) -> Finding:
    """Return whether the limit of the pool fits the rate limit.

    Args:
        requests_per_minute: The rate limit; None if the service names none.
        instance: The Dagster instance that has the pool's limit; None if there is none.
    """
    if requests_per_minute is None:
        return Finding(SUBJECT, "ok", "the service names none.")
    bound = requests_per_minute * _SHARE
    rate = f"{requests_per_minute:,.0f} requests a minute"
    limit = max(1, min(_DEFAULT_LIMIT, math.ceil(bound) - 1))
    advice = f"Keep it below a fifth of that: `dagster instance concurrency set {POOL} {limit}`."
    if instance is None:
        return Finding(
            SUBJECT,
            "ok",
            f"{rate}; the limit of the pool {POOL!r} is not known without a Dagster instance.",
            advice,
        )
    current = _pool_limit(instance)
    if current is None:
        return Finding(SUBJECT, "warning", f"{rate}, and the pool {POOL!r} has no limit.", advice)
    said = f"{rate}, and the pool {POOL!r} has the limit {current:,}."
    if current > 1 and current >= bound:
        return Finding(SUBJECT, "warning", said, advice)
    return Finding(SUBJECT, "ok", said)


def _pool_limit(instance: dg.DagsterInstance) -> int | None:
    storage = instance.event_log_storage
    limits = {pool.name: pool.limit for pool in storage.get_pool_limits()}
    return limits.get(POOL, storage.get_pool_config().default_pool_limit)
