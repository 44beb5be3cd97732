"""Reads datasets of BigQuery over REST, to see what they are linked to."""

from __future__ import annotations

import functools
import os
import urllib.parse
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from octogen_dagster.errors import OctogenBigQueryError
from octogen_dagster.sharing.google_errors import BIGQUERY, translate_google_errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.auth.credentials import Credentials

EMULATOR_VARIABLE = "BIGQUERY_EMULATOR_HOST"
"""Environment variable with the address of a local BigQuery, as Google's library reads it.

Requests to it have no credentials.
"""

_ADDRESS = "https://bigquery.googleapis.com"
_TRANSIENT_STATUSES = {429, 500, 502, 503, 504}
_SERVICE = replace(
    BIGQUERY,
    advice={
        **BIGQUERY.advice,
        "accessDenied": "To read datasets, these Google credentials need bigquery.datasets.get, "
        "which roles/bigquery.user on the project has.",
    },
)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset of BigQuery.

    Attributes:
        location: Its location, such as `US`.
        is_linked: True if it is a linked dataset.
        is_in_force: True if it is linked and the link was not ended.
        source: The dataset that it is linked to, as `projects/<number>/datasets/<id>`; None if
            BigQuery does not say.
    """

    location: str
    is_linked: bool
    is_in_force: bool
    source: str | None


class Datasets:
    """The datasets of BigQuery.

    Args:
        credentials: Returns the Google credentials of the requests; None if there are none, so
            that only a local BigQuery can be read.
        timeout: Seconds for one attempt of a request.
        deadline: Seconds for a request with all its attempts.
        first_wait: The longest wait before the second attempt, in seconds; it doubles with each
            further attempt.
    """

    def __init__(
        self,
        credentials: Callable[[], Credentials] | None,
        *,
        timeout: float = 10.0,
        deadline: float = 20.0,
        first_wait: float = 0.5,
    ) -> None:
        self._credentials = credentials
        self._emulator = os.environ.get(EMULATOR_VARIABLE, "").rstrip("/")
        self._timeout = timeout
        self._deadline = deadline
        self._first_wait = first_wait

    def close(self) -> None:
        """Close the connections if there are any."""
        session = self.__dict__.pop("_session", None)
        if session is not None:
            session.close()

    def get(self, project: str, dataset_id: str) -> Dataset | None:
        """Read a dataset.

        Args:
            project: The id or number of its project.
            dataset_id: Its id.

        Returns:
            None if there is no such dataset.

        Raises:
            OctogenBigQueryError: It cannot be read.
        """
        from google.api_core import exceptions, retry

        subject = f"Dataset {project}.{dataset_id}"
        if self._credentials is None and not self._emulator:
            raise OctogenBigQueryError(
                f"{subject}: it is not looked at, since Analytics Hub is a local server. Set "
                f"{EMULATOR_VARIABLE} if there is a local BigQuery."
            )
        policy = retry.Retry(
            predicate=_is_transient,
            initial=self._first_wait,
            maximum=5.0,
            timeout=self._deadline,
        )
        with translate_google_errors(_SERVICE, subject):
            try:
                content = policy(self._read)(project, dataset_id)
            except exceptions.NotFound:
                return None
        try:
            return _dataset(msgspec.json.decode(content, type=_Resource))
        except msgspec.MsgspecError as error:
            problem = str(error)
        raise OctogenBigQueryError(
            f"{subject}: BigQuery's response is not a dataset ({problem}). Try again later."
        )

    def _read(self, project: str, dataset_id: str) -> bytes:
        from google.api_core import exceptions

        path = "/".join(
            ("/bigquery/v2/projects", urllib.parse.quote(project), "datasets", dataset_id)
        )
        response = self._session.get(
            f"{self._emulator or _ADDRESS}{path}",
            # Without the access rights, bigquery.datasets.getIamPolicy is not needed.
            params={"datasetView": "METADATA"},
            timeout=self._timeout,
        )
        if response.status_code != 200:
            raise exceptions.from_http_response(response)  # type: ignore[no-untyped-call]
        return bytes(response.content)

    @functools.cached_property
    def _session(self) -> Any:
        from google.auth.credentials import AnonymousCredentials
        from google.auth.transport.requests import AuthorizedSession

        if self._emulator or self._credentials is None:
            return AuthorizedSession(AnonymousCredentials())  # type: ignore[no-untyped-call]
        return AuthorizedSession(self._credentials())  # type: ignore[no-untyped-call]


class _Reference(msgspec.Struct, rename="camel"):
    project_id: str
    dataset_id: str


class _Source(msgspec.Struct, rename="camel"):
    source_dataset: _Reference | None = None


class _Metadata(msgspec.Struct, rename="camel"):
    link_state: str | None = None


class _Resource(msgspec.Struct, rename="camel"):
    type: str | None = None
    location: str | None = None
    linked_dataset_source: _Source | None = None
    linked_dataset_metadata: _Metadata | None = None


def _dataset(resource: _Resource) -> Dataset:
    source = resource.linked_dataset_source and resource.linked_dataset_source.source_dataset
    metadata = resource.linked_dataset_metadata
    is_linked = resource.type == "LINKED" or source is not None
    return Dataset(
        location=resource.location or "",
        is_linked=is_linked,
        is_in_force=is_linked and (metadata is None or metadata.link_state != "UNLINKED"),
        source=f"projects/{source.project_id}/datasets/{source.dataset_id}" if source else None,
    )


def _is_transient(error: Exception) -> bool:
    import requests
    from google.api_core.exceptions import GoogleAPICallError

    if isinstance(error, GoogleAPICallError):
        return error.code in _TRANSIENT_STATUSES
    return isinstance(error, (requests.ConnectionError, requests.Timeout))
