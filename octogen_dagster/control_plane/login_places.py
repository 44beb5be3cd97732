"""Where a login is stored: in files or, for processes without a shared disk, in a bucket."""

from __future__ import annotations

import os
from typing import NamedTuple, TypeAlias

from pydantic import SecretStr

from octogen_dagster.control_plane.login_bucket import SecretObject
from octogen_dagster.control_plane.login_files import SecretFile

_FOLDER = "~/.config/octogen"  # Octogen's commands use the same folder and file names
REFRESH_TOKEN_FILE = f"{_FOLDER}/mcp.refresh"
CLIENT_ID_FILE = f"{_FOLDER}/mcp.client-id"
REDIRECT_URI_FILE = f"{_FOLDER}/mcp.redirect-uri"

SecretPlace: TypeAlias = SecretFile | SecretObject


class LoginPlaces(NamedTuple):
    """The files or bucket objects that store a login.

    The redirect URI is registered with the OAuth client. If the redirect URI is not stored, every
    login registers a new client.
    """

    refresh_token: SecretPlace
    client_id: SecretPlace
    redirect_uri: SecretPlace | None = None

    @classmethod
    def at(
        cls,
        refresh_token: str | os.PathLike[str] | None = None,
        client_id: str | os.PathLike[str] | None = None,
        redirect_uri: str | os.PathLike[str] | None = None,
        *,
        token_uri: str | None = None,
    ) -> LoginPlaces:
        """Return the files or bucket objects that store a login.

        The paths default to the files that Octogen's commands use.
        """
        if token_uri:
            return cls(
                secret_at(token_uri, "refresh token"),
                secret_at(client_id or client_id_uri(token_uri), "client id"),
                secret_at(redirect_uri or f"{token_uri}.redirect-uri", "redirect URI"),
            )
        if redirect_uri is None and client_id is None:
            redirect_uri = REDIRECT_URI_FILE
        return cls(
            secret_at(refresh_token or REFRESH_TOKEN_FILE, "refresh token"),
            secret_at(client_id or CLIENT_ID_FILE, "client id"),
            secret_at(redirect_uri, "redirect URI") if redirect_uri else None,
        )


def client_id_uri(token_uri: str) -> str:
    """Return the URI at which the OAuth client id for a refresh token is stored."""
    return f"{token_uri}.client-id"


def secret_at(
    place: str | os.PathLike[str], purpose: str, initial: SecretStr | None = None
) -> SecretPlace:
    """Return the secret at a path or object URL.

    As long as the file is empty or the object is missing, the secret is `initial`.
    """
    scheme, is_url, path = str(place).partition("://")
    if not is_url or scheme == "file":
        return SecretFile(path if is_url else place, purpose, initial)
    from octogen_dagster.storage.buckets import bucket_of

    _, _, key = bucket_of(str(place), "token_uri", "a path")
    if not key:
        raise ValueError(
            f"token_uri {str(place)!r} contains no object name. Add the name of an object in the "
            f"bucket, such as {str(place).rstrip('/')}/octogen/login."
        )
    return SecretObject(str(place), purpose, initial)
