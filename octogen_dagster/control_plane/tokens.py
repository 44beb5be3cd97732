"""The source of access tokens that a configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from octogen_dagster.api.credentials import host_token_endpoint
from octogen_dagster.control_plane.login_files import (
    CLIENT_ID_FILE,
    REFRESH_TOKEN_FILE,
    default_refresh_token_file,
)
from octogen_dagster.control_plane.parsing import parsed_token, required_token
from octogen_dagster.control_plane.retry import DEFAULT_RETRY, DEFAULT_TIMEOUT
from octogen_dagster.control_plane.secret_files import SecretFile
from octogen_dagster.control_plane.token_command import CommandToken
from octogen_dagster.control_plane.token_endpoint import TokenEndpoint
from octogen_dagster.control_plane.token_refresh import RefreshedToken
from octogen_dagster.errors import OctogenMCPAuthenticationError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from pathlib import Path

    from pydantic import SecretStr

    from octogen_dagster.api.retry import RetryPolicy


class AccessTokens(Protocol):
    """A source of access tokens for Octogen's MCP."""

    def token(self, refused: SecretStr | None = None) -> SecretStr:
        """Return a token to use now.

        Args:
            refused: The token that the service has just refused; it is not returned again.

        Raises:
            OctogenMCPAuthenticationError: There is no token.
            OctogenMCPError: The source of the tokens failed.
            OctogenConnectionError: The source of the tokens did not answer.
        """


class GivenToken:
    """A single access token, which cannot be renewed when it expires.

    Args:
        access_token: The token; blanks around it are removed.

    Raises:
        OctogenMCPAuthenticationError: The text cannot be a token.
    """

    def __init__(self, access_token: str) -> None:
        self._token = required_token(parsed_token(access_token), "The access token that was given")

    def token(self, refused: SecretStr | None = None) -> SecretStr:
        """See `AccessTokens.token`."""
        if refused is None:
            return self._token
        raise OctogenMCPAuthenticationError(
            "The access token is refused; they live for some five minutes. Give a new one, or a "
            "refresh token file, which lasts: `octogen-dagster login` writes it."
        )


def access_tokens(
    *,
    token_command: str | None = None,
    client_id: str | None = None,
    client_id_file: str | os.PathLike[str] | None = None,
    refresh_token: str | None = None,
    refresh_token_file: str | os.PathLike[str] | None = None,
    token_endpoint: str | None = None,
    access_token: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> AccessTokens:
    """Return the source of access tokens for a configuration.

    Of several settings the token command is used first, then the refresh token file, then the
    refresh token, then the access token. Without any of them the files of the last login are used,
    which are in `~/.config/octogen`.

    Args:
        token_command: A command that prints an access token.
        client_id: The id of the public OAuth client that the refresh token belongs to.
        client_id_file: The file that holds this id; read only if the id itself is not given.
        refresh_token: A refresh token.
        refresh_token_file: The file that holds the refresh token and receives its replacements. If
            it is empty, the refresh token is written to it first.
        token_endpoint: The URL that refresh tokens are sent to; by default that at
            `OCTOGEN_HOST`, or else Octogen's own.
        access_token: An access token, which is valid for minutes only.
        timeout: Seconds for one request, and for the command.
        retry: How a request to the token endpoint is retried.

    Raises:
        OctogenMCPAuthenticationError: The configuration is missing or incomplete.
        ValueError: The command or the URL cannot be one.
    """
    if token_command:
        return CommandToken(token_command, timeout)
    if not (refresh_token or refresh_token_file):
        if access_token:
            return GivenToken(access_token)
        refresh_token_file = _last_login()
        client_id_file = client_id_file or CLIENT_ID_FILE
    client = _client_id(client_id, client_id_file)
    endpoint = TokenEndpoint(token_endpoint or host_token_endpoint(), timeout=timeout, retry=retry)
    held: SecretFile | str = refresh_token or ""
    if refresh_token_file:
        held = SecretFile(refresh_token_file, "refresh token", initial=refresh_token)
    return RefreshedToken(held, client, endpoint)


def _last_login() -> Path:
    path = default_refresh_token_file()
    if path is None:
        raise OctogenMCPAuthenticationError(
            f"There is no login to Octogen's MCP in {REFRESH_TOKEN_FILE}: run `octogen-dagster "
            "login`; or set OCTOGEN_MCP_REFRESH_TOKEN_FILE and OCTOGEN_MCP_CLIENT_ID_FILE to the "
            "files of a login elsewhere, or OCTOGEN_MCP_TOKEN_COMMAND or OCTOGEN_MCP_ACCESS_TOKEN."
        )
    return path


def _client_id(
    client_id: str | None, client_id_file: str | os.PathLike[str] | None
) -> Callable[[], str]:
    if client_id:
        return lambda: client_id
    if client_id_file:
        file = SecretFile(client_id_file, "client id")
        return lambda: file.read().get_secret_value()
    raise OctogenMCPAuthenticationError(
        "A refresh token belongs to an OAuth client, and its id is missing: set "
        "OCTOGEN_MCP_CLIENT_ID_FILE or OCTOGEN_MCP_CLIENT_ID."
    )
