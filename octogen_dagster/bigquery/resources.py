"""Dagster resources for Analytics Hub and Octogen's control plane."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

import dagster as dg
from pydantic import Field, field_validator, model_validator

from octogen_dagster.api.credentials import checked_host, host_mcp_url, host_token_endpoint
from octogen_dagster.assets.settings import NamedSettings
from octogen_dagster.control_plane.token_settings import access_tokens
from octogen_dagster.control_plane.tools import OctogenMCP
from octogen_dagster.errors import OctogenBigQueryInputError
from octogen_dagster.sharing.hub import AnalyticsHub
from octogen_dagster.validation import require_extras

MCP_URL_VARIABLE = "OCTOGEN_MCP_URL"
TOKEN_ENDPOINT_VARIABLE = "OCTOGEN_MCP_TOKEN_ENDPOINT"  # noqa: S105

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from google.cloud.bigquery import Client

    from octogen_dagster.background import Deadline


class AnalyticsHubResource(NamedSettings, dg.ConfigurableResource[Any]):
    """A connection to BigQuery Analytics Hub for the project that contains the linked datasets.

    For queries in this package, this resource can replace a `dagster_gcp.BigQueryResource`.
    """

    project: str = Field(description="Your Google Cloud project, which is billed for queries.")
    gcp_credentials: str | None = Field(
        default=None,
        repr=False,
        description="A base64-encoded service account key file, as in dagster_gcp. Pass a "
        "dagster.EnvVar. Defaults to Application Default Credentials.",
    )
    endpoint: str | None = Field(
        default=None,
        description="The host:port of a local server, for tests. Defaults to "
        "ANALYTICS_HUB_EMULATOR_HOST, then to Google's server.",
    )

    @model_validator(mode="after")
    def _check_packages(self) -> Self:
        require_extras("AnalyticsHubResource", "bigquery")
        return self

    def hub(self, deadline: float = 120.0, *, within: Deadline | None = None) -> AnalyticsHub:
        """Open an Analytics Hub client for use in a `with` statement.

        Args:
            deadline: Time limit in seconds for a call with all its attempts, or for a list with all
                its pages.
            within: Deadline for all calls together.

        Raises:
            OctogenBigQueryInputError: `gcp_credentials` is not a base64-encoded key file.
        """
        return AnalyticsHub(
            self.credentials(), endpoint=self.endpoint, deadline=deadline, within=within
        )

    @contextlib.contextmanager
    def get_client(self) -> Iterator[Client]:
        """Open a BigQuery client for use in a `with` statement.

        Raises:
            OctogenBigQueryInputError: `gcp_credentials` is not a base64-encoded key file.
        """
        from google.cloud.bigquery import Client

        with contextlib.closing(Client(self.project, self.credentials())) as client:
            yield client

    def credentials(self) -> Credentials | None:
        """Return the credentials in `gcp_credentials`, or None for Application Default Credentials.

        Raises:
            OctogenBigQueryInputError: `gcp_credentials` is not a base64-encoded key file.
        """
        if self.gcp_credentials is None:
            return None
        import google.auth

        try:
            unwrapped = "".join(self.gcp_credentials.split())  # `base64` wraps lines
            info = json.loads(base64.b64decode(unwrapped, validate=True))
            credentials, _ = google.auth.load_credentials_from_dict(info)  # type: ignore[no-untyped-call]
        except (binascii.Error, ValueError, AttributeError, google.auth.exceptions.GoogleAuthError):
            raise OctogenBigQueryInputError(
                "gcp_credentials is not a base64-encoded Google key file. Set it to the output of "
                "`base64 -w0 key.json`."
            ) from None
        return credentials  # type: ignore[no-any-return]


class OctogenControlPlaneResource(NamedSettings, dg.ConfigurableResource[Any]):
    """A connection to Octogen's control plane for the principal that subscribes to catalogs.

    Log in once with `octogen-dagster login`. Omitted settings are read from the step process's
    environment: `OCTOGEN_HOST`, `OCTOGEN_MCP_URL`, `OCTOGEN_MCP_TOKEN_URI`,
    `OCTOGEN_MCP_CLIENT_ID`(`_FILE`), `OCTOGEN_MCP_REFRESH_TOKEN`(`_FILE`),
    `OCTOGEN_MCP_TOKEN_ENDPOINT`, `OCTOGEN_MCP_TOKEN_COMMAND`, `OCTOGEN_MCP_ACCESS_TOKEN`. If none
    of these settings provides a login, the latest login in `~/.config/octogen` is used.
    """

    principal: str = Field(
        description="The IAM principal that subscribes, such as "
        "serviceAccount:reader@my-project.iam.gserviceaccount.com."
    )
    host: str | None = Field(
        default=None,
        description="Base host name, such as storerouter.ai. The MCP server is at mcp.<host>, and "
        "the login server is at auth.<host>. Defaults to OCTOGEN_HOST, then to octogen.ai.",
    )
    url: str | None = Field(
        default=None,
        description="URL for Octogen's MCP server. Defaults to OCTOGEN_MCP_URL, then mcp.<host>.",
    )
    client_id_file: str | None = Field(
        default=None, description="File that contains the OAuth client id."
    )
    refresh_token_file: str | None = Field(
        default=None,
        description="File that contains the refresh token. New tokens are stored in this file.",
    )
    token_uri: str | None = Field(
        default=None,
        description="Location of a login stored by `octogen-dagster login --token-uri`, for "
        "processes without a shared disk: s3://..., gs://..., az://... or a path. Defaults to "
        "OCTOGEN_MCP_TOKEN_URI.",
    )

    @field_validator("host", mode="before")
    @classmethod
    def _check_host(cls, host: object) -> object:
        if not isinstance(host, str) or isinstance(host, dg.EnvVar):
            return host
        return checked_host(host, "host")

    @model_validator(mode="after")
    def _check_packages(self) -> Self:
        require_extras("OctogenControlPlaneResource", "mcp")
        return self

    def control_plane(self, deadline: float = 120.0) -> OctogenMCP:
        """Open a session with Octogen's control plane for use in a `with` statement.

        Args:
            deadline: Time limit in seconds for a call with all its attempts.

        Raises:
            OctogenMCPAuthenticationError: No login is configured.
            ValueError: A URL or command is invalid.
        """
        return OctogenMCP(access_tokens(**self.login), self.mcp_url, deadline=deadline)

    @property
    def login(self) -> dict[str, Any]:
        """The login settings. Fields take precedence over environment variables."""
        kinds = "token_command", "token_uri", "refresh_token_file", "access_token"
        login = _environment(*kinds, "refresh_token", "token_endpoint")
        if self.token_uri or self.refresh_token_file:
            # A login from the fields is not mixed with one from the environment.
            login |= dict.fromkeys(kinds)
            login["token_uri"], login["refresh_token_file"] = (
                self.token_uri,
                self.refresh_token_file,
            )
        client = _environment("client_id", "client_id_file")
        if self.client_id_file or self.token_uri:  # a token URI also stores the client id
            client = {"client_id_file": self.client_id_file}
        return {**login, **client, "host": self.host}

    @property
    def token_endpoint(self) -> str:
        """The URL in `OCTOGEN_MCP_TOKEN_ENDPOINT`, or the host's default token endpoint."""
        return os.environ.get(TOKEN_ENDPOINT_VARIABLE) or host_token_endpoint(self.host)

    @property
    def mcp_url(self) -> str:
        """The URL in `url` or in `OCTOGEN_MCP_URL`, or the host's default MCP URL."""
        return self.url or os.environ.get(MCP_URL_VARIABLE) or host_mcp_url(self.host)


def _environment(*settings: str) -> dict[str, Any]:
    return {name: os.environ.get(f"OCTOGEN_MCP_{name.upper()}") or None for name in settings}
