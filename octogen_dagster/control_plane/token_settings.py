"""Selects the access token source that the configuration specifies."""

from __future__ import annotations

import functools
import os

from pydantic import SecretStr

from octogen_dagster.api.credentials import host_token_endpoint, parsed_word
from octogen_dagster.control_plane.login_places import (
    CLIENT_ID_FILE,
    REFRESH_TOKEN_FILE,
    client_id_uri,
    secret_at,
)
from octogen_dagster.control_plane.refresh import Refresh, Secret, SecretInMemory
from octogen_dagster.control_plane.tokens import (
    DEFAULT_TIMEOUT,
    AccessToken,
    TokenCommand,
    given_token,
)
from octogen_dagster.errors import OctogenMCPAuthenticationError


def access_tokens(
    *,
    token_command: str | None = None,
    client_id: str | None = None,
    client_id_file: str | os.PathLike[str] | None = None,
    refresh_token: str | None = None,
    refresh_token_file: str | os.PathLike[str] | None = None,
    token_uri: str | None = None,
    token_endpoint: str | None = None,
    host: str | None = None,
    access_token: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> AccessToken:
    """Return the access token source for a configuration.

    The first source that is configured is used: token command, token URI, refresh token file,
    refresh token, access token, or the files written by the last login. An empty file or a missing
    bucket object is initialized with the refresh token.
    """
    refresh, access = SecretStr(refresh_token or ""), SecretStr(access_token or "")
    del refresh_token, access_token  # keep them out of tracebacks that show locals
    if token_command and token_command.strip():
        return AccessToken(
            TokenCommand(token_command, timeout),
            "The token command printed the access token that was just rejected. The command "
            "must print a fresh token each time.",
        )
    if token_uri:
        refresh_token_file = token_uri
        client_id_file = client_id_file or client_id_uri(token_uri)
    if not (refresh or refresh_token_file):
        if access:
            return given_token(access)
        refresh_token_file = _last_login()
        client_id_file = client_id_file or CLIENT_ID_FILE
    word = parsed_word(refresh.get_secret_value())
    if refresh_token_file:
        held: Secret = secret_at(refresh_token_file, "refresh token", word)
    elif word:
        held = SecretInMemory(word)
    else:
        raise OctogenMCPAuthenticationError(
            "The refresh token is malformed. A token is a single word without whitespace."
        )
    if client_id:
        client: Secret = SecretInMemory(SecretStr(client_id))
    elif client_id_file:
        client = secret_at(client_id_file, "client id")
    else:
        raise OctogenMCPAuthenticationError(
            "The refresh token can be used only with its OAuth client id. Set "
            "OCTOGEN_MCP_CLIENT_ID_FILE or OCTOGEN_MCP_CLIENT_ID."
        )
    return _refreshed_token(held, client, token_endpoint or host_token_endpoint(host))


@functools.lru_cache(maxsize=16)
def _refreshed_token(held: Secret, client_id: Secret, endpoint: str) -> AccessToken:
    """Return the access token source for a login. All sessions in the process share the source."""
    return AccessToken(
        Refresh(held, client_id, endpoint),
        f"The token endpoint {endpoint} returned the access token that Octogen's MCP has just "
        "rejected. Check that both URLs belong to the same service, or report this to Octogen.",
    )


def _last_login() -> str:
    path = os.path.expanduser(REFRESH_TOKEN_FILE)
    if not os.path.lexists(path):
        raise OctogenMCPAuthenticationError(
            f"No login to Octogen's MCP found in {REFRESH_TOKEN_FILE}. Run `octogen-dagster "
            "login`. To use a login stored elsewhere, set OCTOGEN_MCP_TOKEN_URI, "
            "OCTOGEN_MCP_TOKEN_COMMAND or OCTOGEN_MCP_ACCESS_TOKEN, or set both "
            "OCTOGEN_MCP_REFRESH_TOKEN_FILE and OCTOGEN_MCP_CLIENT_ID_FILE."
        )
    return path
