"""The Dagster resources that subscriptions to listings need."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

import dagster as dg
from pydantic import ConfigDict, Field, field_validator, model_validator

from octogen_dagster.api.credentials import checked_host, host_mcp_url, host_token_endpoint
from octogen_dagster.control_plane.tokens import access_tokens
from octogen_dagster.control_plane.tools import OctogenMCP
from octogen_dagster.errors import OctogenBigQueryInputError
from octogen_dagster.sharing.hub import AnalyticsHub
from octogen_dagster.validation import (
    NamedSettings,
    refuse_unknown_settings,
    require_extras,
)

MCP_URL_VARIABLE = "OCTOGEN_MCP_URL"
TOKEN_ENDPOINT_VARIABLE = "OCTOGEN_MCP_TOKEN_ENDPOINT"  # noqa: S105

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from google.cloud.bigquery import Client

    from octogen_dagster.background import Deadline


class AnalyticsHubResource(NamedSettings, dg.ConfigurableResource[Any]):
    """BigQuery Analytics Hub, and the project that linked datasets are created in.

    It can also stand for a `dagster_gcp.BigQueryResource`, for queries of this package.
    """

    model_config = ConfigDict(hide_input_in_errors=True)
    project: str = Field(description="Your Google Cloud project; it pays for queries.")
    gcp_credentials: str | None = Field(
        default=None,
        repr=False,
        description="A service account's key file in base64, as dagster_gcp takes it, from a "
        "dagster.EnvVar. By default Application Default Credentials.",
    )
    endpoint: str | None = Field(
        default=None,
        description="host:port of a local server, for tests. By default "
        "ANALYTICS_HUB_EMULATOR_HOST, and without it Google.",
    )

    _refuse_unknown = model_validator(mode="wrap")(refuse_unknown_settings)

    @model_validator(mode="after")
    def _check_packages(self) -> Self:
        require_extras("AnalyticsHubResource", "bigquery")
        return self

    def hub(self, deadline: float = 120.0, *, within: Deadline | None = None) -> AnalyticsHub:
        """Open a client of Analytics Hub; use it in a `with` statement.

        Args:
            deadline: Seconds for a call with all its attempts, and for a list with all its pages.
            within: The time for all calls.

        Raises:
            OctogenBigQueryInputError: gcp_credentials are not a key file in base64.
        """
        return AnalyticsHub(
            self.credentials(), endpoint=self.endpoint, deadline=deadline, within=within
        )

    @contextlib.contextmanager
    def get_client(self) -> Iterator[Client]:
        """Open a client of BigQuery; use it in a `with` statement.

        Raises:
            OctogenBigQueryInputError: gcp_credentials are not a key file in base64.
        """
        from google.cloud.bigquery import Client

        with contextlib.closing(Client(self.project, self.credentials())) as client:
            yield client

    def credentials(self) -> Credentials | None:
        """Return the credentials of `gcp_credentials`; None for Application Default Credentials.

        Raises:
            OctogenBigQueryInputError: gcp_credentials are not a key file in base64.
        """
        if self.gcp_credentials is None:
            return None
        import google.auth

        try:
            unwrapped = "".join(self.gcp_credentials.split())  # `base64` breaks its lines
            info = json.loads(base64.b64decode(unwrapped, validate=True))
            credentials, _ = google.auth.load_credentials_from_dict(info)  # type: ignore[no-untyped-call]
        except (binascii.Error, ValueError, AttributeError, google.auth.exceptions.GoogleAuthError):
            raise OctogenBigQueryInputError(
                "gcp_credentials are not a Google key file in base64: set them to the output of "
                "`base64 -w0 key.json`."
            ) from None
        return credentials  # type: ignore[no-any-return]


class OctogenControlPlaneResource(NamedSettings, dg.ConfigurableResource[Any]):
    """Octogen's control plane, and the principal that catalogs are shared with.

    Log in once with `octogen-dagster login`. Settings that are left out are read from the
    environment of the process that runs the step: `OCTOGEN_HOST`, `OCTOGEN_MCP_URL`,
    `OCTOGEN_MCP_TOKEN_URI`, `OCTOGEN_MCP_CLIENT_ID`(`_FILE`), `OCTOGEN_MCP_REFRESH_TOKEN`(`_FILE`),
    `OCTOGEN_MCP_TOKEN_ENDPOINT`, `OCTOGEN_MCP_TOKEN_COMMAND`, `OCTOGEN_MCP_ACCESS_TOKEN`. Without a
    login in any of these, the files of the last login in `~/.config/octogen` are used.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    principal: str = Field(
        description="The IAM principal that subscribes, such as "
        "serviceAccount:reader@my-project.iam.gserviceaccount.com."
    )
    host: str | None = Field(
        default=None,
        description="The host that the MCP server and the login are at, as mcp.<host> and "
        "auth.<host>, such as storerouter.ai. By default OCTOGEN_HOST, then octogen.ai.",
    )
    url: str | None = Field(
        default=None,
        description="Octogen's MCP server. By default OCTOGEN_MCP_URL, then that of the host.",
    )
    client_id_file: str | None = Field(
        default=None, description="The file with the OAuth client's id."
    )
    refresh_token_file: str | None = Field(
        default=None, description="The file with the refresh token; new tokens are stored there."
    )
    token_uri: str | None = Field(
        default=None,
        description="Where `octogen-dagster login --token-uri` has put the login, for processes "
        "that share no disk: s3://..., gs://..., az://... or a path. By default "
        "OCTOGEN_MCP_TOKEN_URI.",
    )

    _refuse_unknown = model_validator(mode="wrap")(refuse_unknown_settings)

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
        """Open a session with Octogen's control plane; use it in a `with` statement.

        Args:
            deadline: Seconds for a call with all its attempts.

        Raises:
            OctogenMCPAuthenticationError: No token and no way to get one is set.
            ValueError: An address or a command is invalid.
        """
        return OctogenMCP(access_tokens(**self.login), self.mcp_url, deadline=deadline)

    @property
    def login(self) -> dict[str, Any]:
        """The arguments of `access_tokens`, from the fields or the environment."""
        kinds = "token_command", "token_uri", "refresh_token_file", "access_token"
        login = _environment(*kinds, "refresh_token", "token_endpoint")
        if self.token_uri or self.refresh_token_file:
            # A login that the fields name is not mixed with one of the environment.
            login |= dict.fromkeys(kinds)
            login["token_uri"], login["refresh_token_file"] = (
                self.token_uri,
                self.refresh_token_file,
            )
        client = _environment("client_id", "client_id_file")
        if self.client_id_file or self.token_uri:  # which has the id of its client beside it
            client = {"client_id_file": self.client_id_file}
        return {**login, **client, "host": self.host}

    @property
    def token_endpoint(self) -> str:
        """The URL that refresh tokens are sent to."""
        return os.environ.get(TOKEN_ENDPOINT_VARIABLE) or host_token_endpoint(self.host)

    @property
    def mcp_url(self) -> str:
        """The URL of the MCP server, from the field or the environment."""
        return self.url or os.environ.get(MCP_URL_VARIABLE) or host_mcp_url(self.host)


def _environment(*settings: str) -> dict[str, Any]:
    return {name: os.environ.get(f"OCTOGEN_MCP_{name.upper()}") or None for name in settings}
