from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from google.oauth2.credentials import Credentials

from octogen_dagster.doctor.google_project import (
    QUERYING,
    SUBSCRIBING,
    check_google_project,
)
from octogen_dagster.doctor.runner import run_checks
from tests.api.servers import RawServer, Received, http
from tests.bigquery.rest_api import environment

TOKEN = "ya29.0123456789"
ACCOUNT = "tests@my-project.iam.gserviceaccount.com"
PERMISSIONS = {**SUBSCRIBING, **QUERYING}


def manager(*granted: str) -> RawServer:
    """A Cloud Resource Manager, and a token endpoint."""

    def respond(request: Received) -> Iterable[bytes]:
        if request.target == "/token":
            return http(200, {"access_token": TOKEN, "expires_in": 3600})
        assert request.target == "/v3/projects/my-project:testIamPermissions"
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        asked = request.json["permissions"]
        return http(200, {"permissions": [name for name in asked if name in granted]})

    return RawServer(respond)


def diagnosed(
    server: RawServer, credentials: Any = None, principal: str | None = None
) -> list[str]:
    check = partial(
        check_google_project,
        credentials,
        "my-project",
        PERMISSIONS,
        principal=principal,
        timeout=30,
        address=server.origin,
    )
    found = [str(each) for each in run_checks({"Google credentials": check}, 60)]
    assert TOKEN not in str(found)
    return found


@pytest.fixture
def person() -> Credentials:
    """The credentials of a person, which name no account."""
    return Credentials(token=TOKEN)  # type: ignore[no-untyped-call]


def test_permissions_that_are_granted_and_missing(person: Credentials) -> None:
    present = [
        "bigquery.datasets.create",
        "bigquery.datasets.get",
        "analyticshub.subscriptions.list",
    ]
    with manager(*present) as server:
        credentials, granted, delete, jobs = diagnosed(server, person)
    assert credentials == (
        "ok       Google credentials: the login of a person, whose account they do not name."
    )
    assert granted == f"ok       Google project: my-project grants {', '.join(present)}."
    assert delete == (
        "failed   Google project: The permission analyticshub.subscriptions.delete is missing: let "
        "an administrator of project my-project grant these Google credentials "
        "roles/analyticshub.subscriptionOwner, with `gcloud projects add-iam-policy-binding "
        "my-project --member=PRINCIPAL --role=roles/analyticshub.subscriptionOwner`, where "
        "PRINCIPAL is their serviceAccount:… or user:…."
    )
    assert "The permission bigquery.jobs.create is missing" in jobs


@pytest.mark.parametrize(
    ("principal", "found"),
    [
        (f"serviceAccount:{ACCOUNT}", "ok"),
        (None, "ok"),
        ("serviceAccount:reader@other.iam.gserviceaccount.com", "warning"),
    ],
)
def test_the_account_of_a_key_file_is_compared_with_the_principal(
    principal: str | None, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with manager(*PERMISSIONS) as server:
        for name, value in environment("", server.origin, tmp_path).items():
            monkeypatch.setenv(name, value)
        credentials, project = diagnosed(server, principal=principal)
    assert credentials.startswith(
        f"{found:<7}  Google credentials: the key file of a service account, {ACCOUNT}."
    )
    assert ("let these credentials be that principal's" in credentials) == (found == "warning")
    assert project.startswith("ok       Google project: my-project grants bigquery.datasets.create")


def test_credentials_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with manager() as server:
        (found,) = diagnosed(server)
    assert found.startswith("failed   Google credentials: Google credentials: there are no Google")
    assert "gcloud auth application-default login" in found


def test_credentials_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(lambda _: http(400, {"error": "invalid_grant"})) as server:
        for name, value in environment("", server.origin, tmp_path).items():
            monkeypatch.setenv(name, value)
        (found,) = diagnosed(server)
    assert "the Google credentials cannot be used" in found
    assert "invalid_grant" in found


def test_a_disabled_api_of_resource_manager_is_told_and_is_no_failure(person: Credentials) -> None:
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "SERVICE_DISABLED",
        "domain": "googleapis.com",
        "metadata": {
            "service": "cloudresourcemanager.googleapis.com",
            "consumer": "projects/my-project",
        },
    }
    error = {"code": 403, "message": "Not used before.", "status": "PERMISSION_DENIED"}
    answer = http(403, {"error": {**error, "details": [info]}})
    with RawServer(lambda _: answer) as server:
        found = diagnosed(server, person)[1]
    assert found.startswith("warning  Google project: the permissions on it are not known. Project")
    assert "gcloud services enable cloudresourcemanager.googleapis.com --project" in found


def test_a_resource_manager_that_does_not_answer(person: Credentials) -> None:
    with RawServer(lambda _: []) as server:
        found = diagnosed(server, person)[1]
    assert "Cloud Resource Manager did not answer (ConnectionError). Check the network" in found


def test_a_project_that_is_refused(person: Credentials) -> None:
    answer = http(403, {"error": {"code": 403, "message": "It may not exist."}})
    with RawServer(lambda _: answer) as server:
        found = diagnosed(server, person)[1]
    assert "Cloud Resource Manager refused (403 Forbidden: " in found
    assert "It may not exist" in found
    assert found.endswith(
        "Check the project's id, and that the Cloud Resource Manager API is enabled."
    )
