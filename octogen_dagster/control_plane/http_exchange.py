"""The HTTP headers of the current tool call: the token that is sent and what the response says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octogen_dagster.api.http import retry_after_seconds

if TYPE_CHECKING:
    import httpx2
    from pydantic import SecretStr


class HttpExchange:
    """Hooks for an HTTP client that authorize requests and record the responses to them.

    The `mcp` package reports an error of the server without the HTTP status that came with it, so
    it is recorded here.

    Attributes:
        token: The access token of the current call; set by `begin`.
        status: The status of the last response to a POST request; 0 if there was none.
        retry_after: The seconds of its `Retry-After` header, if it has one.
    """

    token: SecretStr
    status: int = 0
    retry_after: float | None = None

    def begin(self, token: SecretStr) -> None:
        """Begin a call: use its token and forget the previous response."""
        self.token, self.status, self.retry_after = token, 0, None

    async def authorize(self, request: httpx2.Request) -> None:
        """Add the token to a request."""
        request.headers["Authorization"] = f"Bearer {self.token.get_secret_value()}"

    async def record(self, response: httpx2.Response) -> None:
        """Record the response to a POST request; other requests are not part of a call."""
        import httpx

        if response.request.method == "POST":
            self.status = response.status_code
            self.retry_after = retry_after_seconds(httpx.Headers(dict(response.headers)))

    def masked(self, text: str) -> str:
        """Return the text without the token."""
        return text.replace(self.token.get_secret_value(), "[access token]")
