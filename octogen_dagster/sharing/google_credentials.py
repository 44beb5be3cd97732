"""Loads Google credentials that are ready to use."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

TOKEN_TIMEOUT = 30.0
"""Seconds for one request to Google's token endpoint."""

_SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]


def load_credentials(credentials: Credentials | None = None) -> Credentials:
    """Return credentials with a token: gRPC would retry a refusal until the deadline.

    Args:
        credentials: The credentials; by default Application Default Credentials.

    Raises:
        google.auth.exceptions.GoogleAuthError: There are none, or they are refused.
    """
    import google.auth
    from google.auth.credentials import with_scopes_if_required
    from google.auth.transport.requests import Request

    if credentials is None:
        credentials, _ = google.auth.default(scopes=_SCOPES)
    else:
        credentials = with_scopes_if_required(credentials, _SCOPES)  # type: ignore[no-untyped-call]
    if not credentials.valid:
        # Google's default is 120 s, more than a tick of a sensor has.
        credentials.refresh(functools.partial(Request(), timeout=TOKEN_TIMEOUT))
    return credentials
