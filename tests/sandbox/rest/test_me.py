"""What a caller is told about itself."""

from datetime import datetime, timezone

import pytest

from octogen_dagster.sandbox.rest.limiter import TokenBucket
from octogen_dagster.sandbox.rest.me import me
from tests.sandbox.clock import FakeClock


@pytest.mark.parametrize(
    ("api_key", "key_id"), [("octo_live_0123456789abcdef_c2VjcmV0", "0123456789abcdef")]
)
def test_the_key_is_named_without_its_secret(api_key: str, key_id: str) -> None:
    key = me(api_key, TokenBucket(10))["key"]
    assert key == {"id": key_id, "prefix": "octo_live_0123456789"}


def test_a_key_of_another_form_is_not_shown() -> None:
    answer = me("secret", TokenBucket(10))
    assert "secret" not in str(answer)


def test_the_limit_is_that_of_the_bucket() -> None:
    clock = FakeClock()
    bucket = TokenBucket(10, clock)
    bucket.take()
    limit = me("secret", bucket)["rateLimit"]
    assert (limit["limit"], limit["remaining"]) == (10, 9)
    assert datetime.fromisoformat(limit["resetAt"]) > datetime.now(timezone.utc)
