"""The token endpoint: an access token for a refresh token, which it may replace."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from octogen_dagster.api.errors import (
    OctogenConnectionError,
    OctogenError,
    OctogenMCPAuthenticationError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
    OctogenTimeoutError,
    retry_after_seconds,
)
from octogen_dagster.sharing.retrying import retrying
from octogen_dagster.sharing.urls import checked_url, may_use_proxy

if TYPE_CHECKING:
    import httpx

DEFAULT_TOKEN_ENDPOINT = "https://auth.octogen.ai/oauth2/token"  # noqa: S105
_LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class Grant:
    """What the endpoint gave.

    Attributes:
        access_token: None when the answer holds none that could be used.
        refresh_token: The one that replaces the one sent; None when that one stays.
        seconds: How long the access token lives; None when it did not say.
    """

    access_token: SecretStr | None
    refresh_token: SecretStr | None
    seconds: float | None


class TokenEndpoint:
    """The token endpoint of an authorization server.

    Args:
        url: Where it is.
        timeout: Seconds for one request.
        deadline: Seconds for a request with all its tries.

    Raises:
        ValueError: The URL is not one that a token may be sent to.
    """

    def __init__(self, url: str, *, timeout: float, deadline: float) -> None:
        self._url = checked_url(url, "The token endpoint")
        self._timeout = min(timeout, deadline)
        self._deadline = deadline

    def refresh(self, client_id: str, refresh_token: SecretStr) -> Grant:
        """Ask for an access token; transient failures are tried again.

        Args:
            client_id: The public OAuth client that the refresh token belongs to.
            refresh_token: The current one.

        Raises:
            OctogenMCPAuthenticationError: The refresh token or the client is refused.
            OctogenMCPError: The answer is neither tokens nor a refusal.
            OctogenConnectionError: There is no answer.
        """
        return retrying(self._deadline)(self._refresh_once, client_id, refresh_token)

    def _refresh_once(self, client_id: str, refresh_token: SecretStr) -> Grant:
        answer = self._post(client_id, refresh_token)
        if isinstance(answer, OctogenError):
            raise answer  # here, where no traceback leads to the request
        return answer

    def _post(self, client_id: str, refresh_token: SecretStr) -> Grant | OctogenError:
        import httpx

        try:
            response = self._http.post(
                self._url,
                data={
                    "grant_type": "refresh_token",
                    "refresh_token": refresh_token.get_secret_value(),
                    "client_id": client_id,
                },
                headers={"Accept": "application/json"},
            )
        except httpx.TimeoutException:
            return OctogenTimeoutError(
                f"The token endpoint {self._url} did not answer within {self._timeout:g} s: try "
                "again later."
            )
        except httpx.HTTPError as error:
            return OctogenConnectionError(
                f"The token endpoint {self._url} did not answer ({type(error).__name__}): check "
                "the address and the network."
            )
        return _understood(response, self._url, refresh_token)

    @functools.cached_property
    def _http(self) -> httpx.Client:
        """A client that keeps no connection open, so it need not be closed."""
        import httpx

        return httpx.Client(
            timeout=self._timeout,
            trust_env=may_use_proxy(self._url),
            limits=httpx.Limits(max_keepalive_connections=0),
        )


def secret(value: object) -> SecretStr | None:
    """A token, if the value can be one."""
    text = value.strip() if isinstance(value, str) else ""
    return (
        SecretStr(text)
        if text.isascii() and text.isprintable() and " " not in text and text
        else None
    )


def _understood(
    response: httpx.Response, endpoint: str, refresh_token: SecretStr
) -> Grant | OctogenError:
    body = _json_object(response)
    status = response.status_code
    if status == 200 and body:
        seconds = body.get("expires_in")
        return Grant(
            secret(body.get("access_token")),
            secret(body.get("refresh_token")),
            float(seconds) if isinstance(seconds, int | float) else None,
        )
    said = f"The token endpoint {endpoint} answered {status}"
    if status == 429 or status >= 500:
        kind = OctogenMCPRateLimitError if status == 429 else OctogenMCPError
        wait = retry_after_seconds(response.headers)
        return kind(f"{said}: try again later.", retry_after=wait or 0.0)
    reason = body.get("error")
    if status in (400, 401, 403) and isinstance(reason, str):
        explanation = body.get("error_description")
        detail = f"{reason}: {explanation}" if isinstance(explanation, str) else reason
        detail = detail.replace(refresh_token.get_secret_value(), "[refresh token]")
        return OctogenMCPAuthenticationError(
            f"{said} ({detail[:_LONGEST_REASON]}): the refresh token or the client id is not "
            "valid any more. Run `octogen-mcp-login` to log in again."
        )
    content_type = response.headers.get("content-type", "no content type")
    return OctogenMCPError(
        f"{said} and no tokens ({content_type}): check the address of the token endpoint."
    )


def _json_object(response: httpx.Response) -> dict[str, Any]:
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}
