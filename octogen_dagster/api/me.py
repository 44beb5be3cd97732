"""The API key's own organisation and rate limit, as pydantic models. Nothing is required."""

from __future__ import annotations

from octogen_dagster.api.response_model import Int64, ResponseModel, UtcDatetime


class MeKey(ResponseModel):
    """The API key without its secret. `prefix` may be shown."""

    id: str | None = None
    prefix: str | None = None
    source: str | None = None


class MeOrganization(ResponseModel):
    """The organisation of the key. Only one of type `catalog_partner` may use the API."""

    id: str | None = None
    name: str | None = None
    slug: str | None = None
    type: str | None = None


class MeQuotas(ResponseModel):
    """The quotas of the organisation; none is documented."""


class MeRateLimit(ResponseModel):
    """The organisation's rate limit: requests a minute, those left, and when it is full again."""

    limit: Int64 | None = None
    remaining: Int64 | None = None
    reset_at: UtcDatetime | None = None


class MeResponse(ResponseModel):
    """Whose key it is, and what it may do. `rate_limit` is None if the limiter is off."""

    principal: str | None = None
    key: MeKey | None = None
    organization: MeOrganization | None = None
    quotas: MeQuotas | None = None
    rate_limit: MeRateLimit | None = None
