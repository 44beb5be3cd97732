"""The storage of a login: its OAuth client, and the files that it leaves behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import SecretStr

from octogen_dagster.control_plane.parsing import parsed_token
from octogen_dagster.errors import OctogenMCPAuthenticationError

if TYPE_CHECKING:
    from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

    from octogen_dagster.control_plane.login_files import LoginFiles


class LoginStorage:
    """The token storage that the `mcp` package logs in with.

    The files belong together. They are written when the login has succeeded, not before.

    Args:
        files: The files of the login.
        redirect_uri: The URL that the browser returns to.
        client_id: The id of the OAuth client to use; by default that of the last login.

    Attributes:
        redirect_uri: The URL that the browser returns to, once its port is known.
        advice: What to do if the login fails because its client is not known any more; empty if
            the client is a new one.
        is_written: True when the files are written.
    """

    def __init__(self, files: LoginFiles, redirect_uri: str, client_id: str | None = None) -> None:
        self._files = files
        self._client_id = client_id
        self._client: OAuthClientInformationFull | None = None
        self._tokens: list[str] = []
        self.redirect_uri = redirect_uri
        self.advice = ""
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
        """Return the client of this login: the given one, or the last one at the same URL."""
        client_id = self._client_id or self._saved_client_id()
        if self._client is None and client_id:
            from mcp.shared.auth import OAuthClientInformationFull

            self._client = OAuthClientInformationFull(
                client_id=client_id,
                token_endpoint_auth_method="none",  # noqa: S106
            )
            way = "leave it out" if self._client_id else f"delete {self._files.client_id.path}"
            self.advice = (
                f" If the login page does not know the client, {way}: the next login then "
                "registers a new one."
            )
        return self._client

    def _saved_client_id(self) -> str | None:
        redirect_uri, client_id = self._files.redirect_uri, self._files.client_id
        try:
            if redirect_uri and redirect_uri.read().get_secret_value() == self.redirect_uri:
                return client_id.read().get_secret_value()
        except OctogenMCPAuthenticationError:  # there was no login yet
            pass
        return None

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
        self._client, self.advice = client_info, ""

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Write the files.

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
        files = self._files
        with files.refresh_token.locked():
            files.client_id.write(client_id)
            if files.redirect_uri:
                files.redirect_uri.write(SecretStr(self.redirect_uri))
            files.refresh_token.write(refresh_token)
        self.is_written = True
