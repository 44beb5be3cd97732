from __future__ import annotations

import dagster as dg
import pytest

from octogen_dagster.doctor.rate_limit import compare_limits


def pooled(**pools: object) -> dg.DagsterInstance:
    """An instance with these settings of its pools."""
    return dg.DagsterInstance.ephemeral(settings={"concurrency": {"pools": pools}})


def test_without_an_instance_the_limit_is_shown_with_how_to_set_that_of_the_pool() -> None:
    finding = compare_limits(600, None)
    assert str(finding) == (
        "ok       Octogen rate limit: 600 requests a minute; the limit of the pool 'octogen' is "
        "not known without a Dagster instance. Keep it below a fifth of that: `dagster instance "
        "concurrency set octogen 8`."
    )


def test_a_service_without_a_limit() -> None:
    assert str(compare_limits(None, None)) == "ok       Octogen rate limit: the service names none."


@pytest.mark.parametrize(
    ("rate", "default", "own", "status", "said"),
    [
        (600, None, None, "warning", "and the pool 'octogen' has no limit."),
        (600, 8, None, "ok", "has the limit 8."),
        (600, 8, 120, "warning", "has the limit 120."),
        (600, 500, 119, "ok", "has the limit 119."),
        (3, 1, None, "ok", "has the limit 1."),
    ],
)
def test_the_limit_of_the_pool_stays_below_a_fifth(
    rate: float, default: int | None, own: int | None, status: str, said: str
) -> None:
    settings = {} if default is None else {"default_limit": default}
    with pooled(**settings) as instance:
        if own is not None:
            instance.event_log_storage.set_concurrency_slots("octogen", own)
        finding = compare_limits(rate, instance)
    assert (finding.status, finding.message.endswith(said)) == (status, True)


def test_the_limit_that_is_advised_is_below_a_fifth() -> None:
    assert compare_limits(20, None).advice.endswith("set octogen 3`.")
    assert compare_limits(2, None).advice.endswith("set octogen 1`.")
