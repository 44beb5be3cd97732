"""The files that a login leaves behind: the refresh token and the id of its OAuth client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octogen_dagster.control_plane.parsing import parsed_token
from octogen_dagster.errors import OctogenMCPAuthenticationError

if TYPE_CHECKING:
    from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

    from octogen_dagster.control_plane.secret_files import SecretFile


class LoginStorage:
    """The token storage that the `mcp` package logs in with.

    The two files belong together. They are written when the login has succeeded, not before.

    Args:
        refresh_token_file: The file for the refresh token.
        client_id_file: The file for the id of the OAuth client.

    Attributes:
        is_written: True when both files are written.
    """

    def __init__(self, refresh_token_file: SecretFile, client_id_file: SecretFile) -> None:
        self._refresh_token_file = refresh_token_file
        self._client_id_file = client_id_file
        self._client: OAuthClientInformationFull | None = None
        self._tokens: list[str] = []
        self.is_written = False

    def masked(self, text: str) -> str:
        """Return the text without the tokens of the login."""
        for token in self._tokens:
            text = text.replace(token, "[token]")
        return text

    async def get_tokens(self) -> OAuthToken | None:
        """Return no tokens, so that the person logs in."""
        return None

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """Return the client of this login, once it is registered."""
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Remember the client that was registered.

        Raises:
            OctogenMCPAuthenticationError: The client is not a public one.
        """
        if client_info.client_secret:
            raise OctogenMCPAuthenticationError(
                "The login registered a client with a secret, and a public one is needed: report "
                "it to Octogen."
            )
        self._client = client_info

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Write both files.

        Raises:
            OctogenMCPAuthenticationError: There is no refresh token, or a file cannot be written.
            OctogenTimeoutError: Another process holds the lock of the refresh token file.
        """
        self._tokens = [token for token in (tokens.access_token, tokens.refresh_token) if token]
        refresh_token = parsed_token(tokens.refresh_token)
        client_id = parsed_token(self._client.client_id if self._client else None)
        if refresh_token is None or client_id is None:
            raise OctogenMCPAuthenticationError(
                "The login gave no refresh token, so it would last for minutes only: ask Octogen "
                "for offline access."
            )
        with self._refresh_token_file.locked():
            self._client_id_file.write(client_id)
            self._refresh_token_file.write(refresh_token)
        self.is_written = True
