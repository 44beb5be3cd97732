"""The checks of the login to Octogen's MCP, of its role and of the subscriber."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octogen_dagster.api.credentials import address_origin
from octogen_dagster.bigquery.resources import MCP_URL_VARIABLE, TOKEN_ENDPOINT_VARIABLE
from octogen_dagster.control_plane.tokens import LoginFiles
from octogen_dagster.doctor.findings import Finding
from octogen_dagster.errors import OctogenMCPError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from octogen_dagster.bigquery.resources import OctogenControlPlaneResource
    from octogen_dagster.control_plane.tools import OctogenMCP

HOST, LOGIN, ROLE, SUBSCRIBER = "MCP host", "MCP login", "MCP role", "MCP subscriber"


def check_control_plane(
    control_plane: OctogenControlPlaneResource, project: str | None, timeout: float
) -> Generator[Finding, None, Sequence[str]]:
    """Check the login, its role and whether the principal is registered.

    Args:
        control_plane: The resource.
        project: The project that linked datasets are created in; None if it is not known.
        timeout: Seconds for each call.

    Returns:
        The resource names of the listings that are shared with the organisation.

    Raises:
        OctogenMCPError: The login does not work.
        OctogenConnectionError: Octogen does not respond.
    """
    yield _host_finding(control_plane)
    yield from _refresh_token_findings(control_plane.login)
    with control_plane.control_plane(timeout) as octogen:
        listings = [each.listing_resource for each in octogen.listings() if each.listing_resource]
        yield Finding(
            LOGIN,
            "ok",
            f"{control_plane.mcp_url} accepts the login; listings shared with the organisation: "
            f"{len(listings):,}.",
        )
        try:
            yield from _subscriber_findings(octogen, project, control_plane.principal)
        except OctogenMCPError as error:
            yield Finding(ROLE, "failed", str(error))
    return listings


def _host_finding(control_plane: OctogenControlPlaneResource) -> Finding:
    url, endpoint = control_plane.mcp_url, control_plane.login["token_endpoint"]
    of_url = address_origin(control_plane.url, "url", MCP_URL_VARIABLE, control_plane.host)
    of_endpoint = address_origin(None, "", TOKEN_ENDPOINT_VARIABLE, control_plane.host)
    said = f"{url} ({of_url}); refresh tokens go to {endpoint} ({of_endpoint})."
    return Finding(HOST, "ok", said)


def _subscriber_findings(
    octogen: OctogenMCP, project: str | None, principal: str
) -> Iterator[Finding]:
    subscribers, _ = octogen.subscribers()
    yield Finding(ROLE, "ok", "the login may manage subscribers.")
    mine = [
        each
        for each in subscribers
        if each.principal == principal and project in (None, each.project)
    ]
    name = f"{principal} in project {project}" if project else principal
    if not mine:
        yield Finding(
            SUBSCRIBER,
            "warning",
            f"{name} is not registered.",
            "A linked dataset with control_plane=True registers it, and so does "
            "`octogen-dagster bq autosubscribe --apply`.",
        )
    elif all(each.desired_state not in (None, "enabled") for each in mine):
        yield Finding(
            SUBSCRIBER,
            "failed",
            f"{name} is registered and {mine[0].desired_state}.",
            "Ask Octogen to enable it.",
        )
    else:
        yield Finding(SUBSCRIBER, "ok", f"{name} is registered.")


def _refresh_token_findings(login: Mapping[str, str | None]) -> Iterator[Finding]:
    """Warn of a refresh token that is lost or that others can read."""
    if login.get("token_command"):
        return
    file = login.get("refresh_token_file")
    if not file and login.get("refresh_token"):
        yield Finding(
            LOGIN,
            "warning",
            "OCTOGEN_MCP_REFRESH_TOKEN holds the refresh token, and a new one that replaces it is "
            "lost with the process.",
            "Keep it in a file: `octogen-dagster login` writes it.",
        )
    elif file or not login.get("access_token"):
        token = LoginFiles.at(file).refresh_token
        try:
            mode = token.exposed_mode()
        except OSError:  # the login tells more
            return
        if mode is not None:
            yield Finding(
                LOGIN,
                "warning",
                f"others can read the {token} (mode {mode:04o}).",
                "A login that works leaves it to its owner alone; if others may have read it, run "
                "`octogen-dagster login` again.",
            )
