"""What the API tells a caller about its key, its organisation and its rate limit."""

import uuid
from datetime import datetime, timedelta, timezone

from octogen_dagster.sandbox.rest.limiter import TokenBucket
from octogen_dagster.sandbox.rest.views import Json


def me(api_key: str, limiter: TokenBucket) -> Json:
    """Return the answer of `GET /me`."""
    parts = api_key.split("_")
    key_id = parts[2] if len(parts) > 3 else str(uuid.uuid5(uuid.NAMESPACE_OID, api_key))
    reset_at = datetime.now(timezone.utc) + timedelta(seconds=limiter.seconds_to_full)
    return {
        "principal": "api_key",
        "key": {"id": key_id, "prefix": f"octo_live_{key_id[:10]}"},
        "organization": {
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, "sandbox")),
            "name": "Sandbox",
            "slug": "sandbox",
            "type": "catalog_partner",
        },
        "quotas": {},
        "rateLimit": {
            "limit": limiter.size,
            "remaining": limiter.remaining,
            "resetAt": reset_at.isoformat(),
        },
    }
