"""The token bucket, on a fake clock."""

import pytest

from octogen_dagster.sandbox.rest.limiter import TokenBucket
from tests.sandbox.clock import FakeClock


def test_it_holds_one_minute_of_requests_and_no_more() -> None:
    clock = FakeClock()
    bucket = TokenBucket(3, clock)
    clock.now = 600
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


def test_it_refills_steadily() -> None:
    clock = FakeClock()
    bucket = TokenBucket(60, clock)
    for _ in range(60):
        bucket.take()
    clock.now = 2.5
    assert bucket.remaining == 2
    assert [bucket.take() for _ in range(3)] == [True, True, False]


def test_it_says_when_there_is_a_token_and_when_it_is_full() -> None:
    clock = FakeClock()
    bucket = TokenBucket(6, clock)
    assert bucket.seconds_to_full == 0
    for _ in range(6):
        bucket.take()
    assert bucket.retry_after == 10
    assert bucket.seconds_to_full == pytest.approx(60)
    clock.now = 3.5
    assert bucket.retry_after == 7
    assert bucket.seconds_to_full == pytest.approx(56.5)


def test_the_retry_delay_is_at_least_a_second() -> None:
    clock = FakeClock()
    bucket = TokenBucket(60_000, clock)
    for _ in range(60_000):
        bucket.take()
    assert not bucket.take()
    assert bucket.retry_after == 1


def test_a_bucket_needs_a_size_of_1_or_more() -> None:
    with pytest.raises(ValueError, match="1 or more"):
        TokenBucket(0)
