"""The OAuth token endpoint: a refresh token is exchanged for an access token."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from octogen_dagster.api.credentials import checked_url, may_use_proxy
from octogen_dagster.api.http import retry_after_seconds
from octogen_dagster.control_plane.parsing import parsed_object, parsed_seconds, parsed_token
from octogen_dagster.control_plane.retry import DEFAULT_RETRY, DEFAULT_TIMEOUT, with_retries
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenError,
    OctogenMCPAuthenticationError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
    OctogenTimeoutError,
)

if TYPE_CHECKING:
    import ssl

    import httpx
    from pydantic import SecretStr

    from octogen_dagster.api.retry import RetryPolicy

_MAX_REASON_LENGTH = 200
_MAX_BODY_SIZE = 1_000_000


@dataclass(frozen=True, slots=True)
class TokenResponse:
    """The tokens that the endpoint issued.

    Attributes:
        access_token: The access token; None if the response holds no usable one.
        refresh_token: The refresh token that replaces the one that was sent; None if that one
            stays valid.
        expires_in: Seconds that the access token is valid for; None if the response does not say.
    """

    access_token: SecretStr | None
    refresh_token: SecretStr | None
    expires_in: float | None


class TokenEndpoint:
    """The token endpoint of an authorization server.

    Args:
        url: The URL of the endpoint.
        timeout: Seconds for one request, until the whole response is read.
        retry: How a request is retried.

    Raises:
        ValueError: The URL is not one that a token may be sent to.
    """

    def __init__(
        self, url: str, *, timeout: float = DEFAULT_TIMEOUT, retry: RetryPolicy = DEFAULT_RETRY
    ) -> None:
        self._url = checked_url(url, "The token endpoint")
        self._timeout = min(timeout, retry.deadline)
        self._retry = retry

    def refresh(self, client_id: str, refresh_token: SecretStr) -> TokenResponse:
        """Request an access token, and retry failures that may pass.

        This runs an event loop, so the calling thread must not be inside of one.

        Args:
            client_id: The id of the public OAuth client that the refresh token belongs to.
            refresh_token: The current refresh token.

        Raises:
            OctogenMCPAuthenticationError: The endpoint refused the refresh token or the client.
            OctogenMCPError: The response is neither tokens nor a refusal.
            OctogenConnectionError: There was no response.
        """
        ends_at = time.monotonic() + self._retry.deadline
        return with_retries(
            lambda: self._refresh_once(client_id, refresh_token, ends_at), self._retry
        )

    def _refresh_once(
        self, client_id: str, refresh_token: SecretStr, ends_at: float
    ) -> TokenResponse:
        result = self._request(client_id, refresh_token, ends_at)
        if isinstance(result, OctogenError):
            # Raised here, because the frames of `_request` hold the refresh token.
            raise result
        return result

    def _request(
        self, client_id: str, refresh_token: SecretStr, ends_at: float
    ) -> TokenResponse | OctogenError:
        import anyio
        import httpx

        form = {
            "grant_type": "refresh_token",
            "refresh_token": refresh_token.get_secret_value(),
            "client_id": client_id,
        }
        seconds = min(self._timeout, ends_at - time.monotonic())
        try:
            response = anyio.run(self._post, form, seconds)
        except TimeoutError:
            return OctogenTimeoutError(
                f"The token endpoint {self._url} did not answer within {self._timeout:g} s: try "
                "again later."
            )
        except httpx.HTTPError as error:
            return OctogenConnectionError(
                f"The token endpoint {self._url} did not answer ({type(error).__name__}): check "
                "the address and the network."
            )
        subject = f"The token endpoint {self._url}"
        return _parsed_tokens(subject, response) or _failure(subject, response, refresh_token)

    async def _post(self, form: dict[str, str], seconds: float) -> _Response:
        """Send the form and read the whole response.

        Raises:
            TimeoutError: The response was not read in time. The timeouts of an HTTP client apply
                to each part of a response, so a server that drips could hold them off for ever.
        """
        import anyio
        import httpx

        content = b""
        with anyio.fail_after(seconds):
            async with (
                httpx.AsyncClient(
                    timeout=None,  # noqa: S113
                    trust_env=may_use_proxy(self._url),
                    verify=self._tls,
                ) as http,
                http.stream(
                    "POST", self._url, data=form, headers={"Accept": "application/json"}
                ) as response,
            ):
                async for part in response.aiter_bytes():
                    content += part
                    if len(content) > _MAX_BODY_SIZE:
                        break
        return _Response(response.status_code, response.headers, content)

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        import httpx

        return httpx.create_ssl_context()


class _Response(NamedTuple):
    status: int
    headers: httpx.Headers
    content: bytes


def _parsed_tokens(subject: str, response: _Response) -> TokenResponse | OctogenError | None:
    """Return the tokens of a successful response; None if the response is not successful."""
    body = parsed_object(response.content)
    if response.status != 200 or not body:
        return None
    replacement = parsed_token(body.get("refresh_token"))
    if body.get("refresh_token") and replacement is None:
        return OctogenMCPAuthenticationError(
            f"{subject} gave a new refresh token that cannot be one: a token is one word, without "
            "blanks. The one it was given may be spent now: run `octogen-dagster login` to log in "
            "again."
        )
    return TokenResponse(
        parsed_token(body.get("access_token")), replacement, parsed_seconds(body.get("expires_in"))
    )


def _failure(subject: str, response: _Response, refresh_token: SecretStr) -> OctogenError:
    """Return the error that a response without tokens stands for."""
    status = response.status
    said = f"{subject} answered {status}"
    if status == 429 or status >= 500:
        kind = OctogenMCPRateLimitError if status == 429 else OctogenMCPError
        wait = retry_after_seconds(response.headers)
        return kind(f"{said}: try again later.", retry_after=wait or 0.0)
    reason = _reason(parsed_object(response.content))
    if status in (400, 401, 403) and reason is not None:
        reason = reason.replace(refresh_token.get_secret_value(), "[refresh token]")
        return OctogenMCPAuthenticationError(
            f"{said} ({reason[:_MAX_REASON_LENGTH]}): the refresh token or the client id is not "
            "valid any more. Run `octogen-dagster login` to log in again."
        )
    content_type = response.headers.get("content-type", "no content type")
    return OctogenMCPError(
        f"{said} and no tokens ({content_type}): check the address of the token endpoint."
    )


def _reason(body: dict[str, Any]) -> str | None:
    """Return the error code of an OAuth error response, with its description if there is one."""
    code, description = body.get("error"), body.get("error_description")
    if not isinstance(code, str):
        return None
    return f"{code}: {description}" if isinstance(description, str) else code
