"""Access tokens that a refresh token is exchanged for."""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import TYPE_CHECKING

from octogen_dagster.background import run_uninterrupted
from octogen_dagster.control_plane.parsing import parsed_token, required_token
from octogen_dagster.control_plane.secret_files import SecretFile
from octogen_dagster.errors import OctogenMCPAuthenticationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import SecretStr

    from octogen_dagster.control_plane.token_endpoint import TokenEndpoint, TokenResponse

_MIN_LIFETIME_SECONDS = 30.0
_LOGGER = logging.getLogger(__name__)


class RefreshedToken:
    """The access tokens of a refresh token, which the endpoint may replace with each of them.

    A new refresh token is stored before anything else is done with the response, even if the
    process is interrupted, and the file is locked meanwhile. The file is written once before the
    old refresh token is sent, so that a file that cannot be replaced costs no token.

    Args:
        refresh_token: The file that holds the refresh token; or the token itself, whose
            replacement is lost when this process ends.
        client_id: Returns the id of the public OAuth client that the refresh token belongs to.
        endpoint: The token endpoint.
        clock: Returns seconds of a clock that never goes back.

    Raises:
        OctogenMCPAuthenticationError: The refresh token cannot be one.
    """

    def __init__(
        self,
        refresh_token: SecretFile | str,
        client_id: Callable[[], str],
        endpoint: TokenEndpoint,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if isinstance(refresh_token, SecretFile):
            self._refresh_token: SecretFile | SecretStr = refresh_token
        else:
            self._refresh_token = required_token(parsed_token(refresh_token), "The refresh token")
        self._client_id = client_id
        self._endpoint = endpoint
        self._clock = clock
        self._guard = threading.Lock()
        self._token: SecretStr | None = None
        self._renew_at = -math.inf

    def token(self, refused: SecretStr | None = None) -> SecretStr:
        """See `AccessTokens.token`."""
        with self._guard:
            if self._token in (None, refused) or self._clock() > self._renew_at:
                self._renew()
            return required_token(self._token, "What the token endpoint gave as access token")

    def _renew(self) -> None:
        self._token = None
        response = run_uninterrupted(
            self._refresh,
            "Waiting for the token endpoint: it may be replacing the refresh token, and the new "
            "one would be lost.",
        )
        lifetime = math.inf if response.expires_in is None else response.expires_in
        self._renew_at = self._clock() + max(lifetime - _MIN_LIFETIME_SECONDS, lifetime / 2)
        self._token = response.access_token

    def _refresh(self) -> TokenResponse:
        if isinstance(self._refresh_token, SecretFile):
            return self._refresh_from_file(self._refresh_token)
        return self._refresh_from_memory(self._refresh_token)

    def _refresh_from_file(self, file: SecretFile) -> TokenResponse:
        with file.locked():
            old = file.read()
            file.warn_if_exposed()
            file.write(old)
            try:
                response = self._request(old)
            except OctogenMCPAuthenticationError:
                current = file.read()
                if current == old:
                    raise
                # Another program replaced the token at the same moment without locking the file.
                response = self._request(current)
            if response.refresh_token is not None:
                _store(file, response.refresh_token)
            return response

    def _refresh_from_memory(self, old: SecretStr) -> TokenResponse:
        response = self._request(old)
        if response.refresh_token not in (None, old):
            self._refresh_token = response.refresh_token
            _LOGGER.warning(
                "Octogen replaced the refresh token, and the new one is lost when this process "
                "ends: keep the refresh token in a file."
            )
        return response

    def _request(self, refresh_token: SecretStr) -> TokenResponse:
        return self._endpoint.refresh(self._client_id(), refresh_token)


def _store(file: SecretFile, refresh_token: SecretStr) -> None:
    try:
        file.write(refresh_token)
    except OctogenMCPAuthenticationError as error:
        raise OctogenMCPAuthenticationError(
            f"{error} The token in it is spent now: then run `octogen-dagster login` again."
        ) from None
