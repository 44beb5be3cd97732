"""The token endpoint: an access token for a refresh token, which it may replace."""

from __future__ import annotations

import functools
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import SecretStr

from octogen_dagster.api.urls import checked_url, may_use_proxy
from octogen_dagster.control_plane.retry import finite_seconds, retrying
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenError,
    OctogenMCPAuthenticationError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
    OctogenTimeoutError,
    retry_after_seconds,
)

if TYPE_CHECKING:
    import ssl

    import httpx

DEFAULT_TOKEN_ENDPOINT = "https://auth.octogen.ai/oauth2/token"  # noqa: S105
_MAX_REASON_LENGTH = 200
_MAX_ANSWER_SIZE = 1_000_000


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
        timeout: Seconds for one request, to the end of its answer.
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

        It runs an event loop, so the thread must not be in one.

        Args:
            client_id: The public OAuth client that the refresh token belongs to.
            refresh_token: The current one.

        Raises:
            OctogenMCPAuthenticationError: The refresh token or the client is refused.
            OctogenMCPError: The answer is neither tokens nor a refusal.
            OctogenConnectionError: There is no answer.
        """
        ends_at = time.monotonic() + self._deadline
        return retrying(self._deadline)(self._refresh_once, client_id, refresh_token, ends_at)

    def _refresh_once(self, client_id: str, refresh_token: SecretStr, ends_at: float) -> Grant:
        answer = self._post(client_id, refresh_token, ends_at)
        if isinstance(answer, OctogenError):
            raise answer  # here, where no traceback leads to the request
        return answer

    def _post(
        self, client_id: str, refresh_token: SecretStr, ends_at: float
    ) -> Grant | OctogenError:
        import anyio
        import httpx

        form = {
            "grant_type": "refresh_token",
            "refresh_token": refresh_token.get_secret_value(),
            "client_id": client_id,
        }
        seconds = min(self._timeout, ends_at - time.monotonic())
        try:
            answer = anyio.run(self._answered, form, seconds)
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
        return _understood(answer, self._url, refresh_token)

    async def _answered(self, form: dict[str, str], seconds: float) -> _Answer:
        """The answer, if all of it comes in time: the timeouts of a client are for each part."""
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
                    if len(content) > _MAX_ANSWER_SIZE:
                        break
        return _Answer(response.status_code, response.headers, content)

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        import httpx

        return httpx.create_ssl_context()


class _Answer(NamedTuple):
    status: int
    headers: httpx.Headers
    content: bytes


def secret(value: object) -> SecretStr | None:
    """A token, if the value can be one."""
    text = value.strip() if isinstance(value, str) else ""
    return (
        SecretStr(text)
        if text.isascii() and text.isprintable() and " " not in text and text
        else None
    )


def _understood(answer: _Answer, endpoint: str, refresh_token: SecretStr) -> Grant | OctogenError:
    body = _json_object(answer.content)
    status = answer.status
    if status == 200 and body:
        replacement = secret(body.get("refresh_token"))
        if body.get("refresh_token") and replacement is None:
            return OctogenMCPAuthenticationError(
                f"The token endpoint {endpoint} gave a new refresh token that cannot be one: a "
                "token is one word, without blanks. The one it was given may be spent now: run "
                "`octogen-mcp-login` to log in again."
            )
        return Grant(
            secret(body.get("access_token")), replacement, finite_seconds(body.get("expires_in"))
        )
    said = f"The token endpoint {endpoint} answered {status}"
    if status == 429 or status >= 500:
        kind = OctogenMCPRateLimitError if status == 429 else OctogenMCPError
        wait = retry_after_seconds(answer.headers)
        return kind(f"{said}: try again later.", retry_after=wait or 0.0)
    reason = body.get("error")
    if status in (400, 401, 403) and isinstance(reason, str):
        explanation = body.get("error_description")
        detail = f"{reason}: {explanation}" if isinstance(explanation, str) else reason
        detail = detail.replace(refresh_token.get_secret_value(), "[refresh token]")
        return OctogenMCPAuthenticationError(
            f"{said} ({detail[:_MAX_REASON_LENGTH]}): the refresh token or the client id is not "
            "valid any more. Run `octogen-mcp-login` to log in again."
        )
    content_type = answer.headers.get("content-type", "no content type")
    return OctogenMCPError(
        f"{said} and no tokens ({content_type}): check the address of the token endpoint."
    )


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}
