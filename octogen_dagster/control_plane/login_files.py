"""The files of a login, in the folder and under the names that Octogen's own commands use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from octogen_dagster.control_plane.secret_files import SecretFile
from octogen_dagster.errors import OctogenMCPAuthenticationError

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = "~/.config/octogen"
REFRESH_TOKEN_FILE = f"{FOLDER}/mcp.refresh"
CLIENT_ID_FILE = f"{FOLDER}/mcp.client-id"
REDIRECT_URI_FILE = f"{FOLDER}/mcp.redirect-uri"


class LoginFiles(NamedTuple):
    """The files that a login writes and later logins and refreshes read.

    Attributes:
        refresh_token: The refresh token.
        client_id: The id of the OAuth client that the refresh token belongs to.
        redirect_uri: The URL that this client was registered with; None if it is not kept, so that
            every login registers a new client.
    """

    refresh_token: SecretFile
    client_id: SecretFile
    redirect_uri: SecretFile | None = None

    @classmethod
    def at(
        cls,
        refresh_token: str | os.PathLike[str] | None = None,
        client_id: str | os.PathLike[str] | None = None,
        redirect_uri: str | os.PathLike[str] | None = None,
    ) -> LoginFiles:
        """Return the files at these paths.

        Args:
            refresh_token: By default `mcp.refresh` in `FOLDER`.
            client_id: By default `mcp.client-id` in `FOLDER`.
            redirect_uri: By default `mcp.redirect-uri` in `FOLDER` if the client id is there too,
                or else no file.
        """
        if redirect_uri is None and client_id is None:
            redirect_uri = REDIRECT_URI_FILE
        return cls(
            SecretFile(refresh_token or REFRESH_TOKEN_FILE, "refresh token"),
            SecretFile(client_id or CLIENT_ID_FILE, "client id"),
            SecretFile(redirect_uri, "redirect URI") if redirect_uri else None,
        )

    def make_folder(self) -> None:
        """Create `FOLDER`, which only its owner may enter, if one of the files is in it.

        Raises:
            OctogenMCPAuthenticationError: It cannot be created.
        """
        folder = os.path.expanduser(FOLDER)
        if not any(file and os.fspath(file.path.parent) == folder for file in self):
            return
        problem: str | None = "the home folder of this user is unknown"
        if os.path.isabs(folder):
            try:
                os.makedirs(folder, mode=0o700, exist_ok=True)
            except OSError as error:
                problem = error.strerror
            else:
                return
        raise OctogenMCPAuthenticationError(
            f"The folder {folder} for the login cannot be created: {problem}. Set HOME, or name "
            "the files of the login."
        )


def default_refresh_token_file() -> Path | None:
    """Return the path of the default refresh token file, or None if there is no such file."""
    path = SecretFile(REFRESH_TOKEN_FILE, "refresh token").path
    return path if os.path.lexists(path) else None
