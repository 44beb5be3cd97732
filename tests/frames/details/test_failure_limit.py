"""When failed lookups end all others."""

from __future__ import annotations

import httpx
import pytest

from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenResponseError,
    OctogenServerError,
    OctogenShopError,
    OctogenSnapshotError,
)
from octogen_dagster.frames.details.failure_limit import FailureLimit


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limit(clock: Clock) -> FailureLimit:
    return FailureLimit(1, 100, 300, clock)


def test_a_service_that_answers_none_for_too_long_ends_them(
    limit: FailureLimit, clock: Clock
) -> None:
    limit.note_failure(OctogenConnectionError("slow"), clock.now)
    clock.now += 300
    with pytest.raises(OctogenSnapshotError, match="no lookup for 300 s, retries included"):
        limit.note_failure(OctogenConnectionError("slow"), clock.now)


def test_a_service_that_answers_others_meanwhile_is_not_silent(
    limit: FailureLimit, clock: Clock
) -> None:
    began = clock.now
    clock.now += 400
    limit.note_answer()
    limit.note_failure(OctogenConnectionError("slow"), began)


def test_any_response_is_a_sign_of_life(limit: FailureLimit, clock: Clock) -> None:
    began = clock.now
    clock.now += 400
    limit.note_failure(OctogenResponseError("odd", httpx.Response(200)), began)
    limit.note_failure(OctogenServerError("down", httpx.Response(503)), began)


def test_a_shop_that_fails_is_no_silence_of_the_service(limit: FailureLimit, clock: Clock) -> None:
    shop = OctogenShopError("slow shop", httpx.Response(504), "product_lookup_timed_out")
    limit.note_failure(OctogenConnectionError("slow"), clock.now)
    for _ in range(10):
        clock.now += 200
        limit.note_failure(shop, clock.now)
    limit.note_failure(OctogenConnectionError("slow"), clock.now - 200)


def test_lookups_that_are_not_needed_lower_the_number_that_may_fail(clock: Clock) -> None:
    limit = FailureLimit(0.1, 20, 300, clock)
    limit.note_failure(OctogenConnectionError("one"), clock.now)
    limit.note_failure(OctogenConnectionError("two"), clock.now)
    limit.reduce_total(0)
    with pytest.raises(OctogenSnapshotError, match="More than 10 % of the lookups failed: 2 of 19"):
        limit.reduce_total(1)
