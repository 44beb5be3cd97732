"""Datasets as BigQuery's REST API describes them, and refusals to read them."""

from __future__ import annotations

from typing import Any

import pytest
from google.oauth2.credentials import Credentials

from octogen_dagster.errors import OctogenBigQueryError, OctogenBigQueryUnavailableError
from octogen_dagster.sharing import datasets as datasets_module
from octogen_dagster.sharing.analytics_hub import AnalyticsHub
from octogen_dagster.sharing.datasets import EMULATOR_VARIABLE, Dataset, Datasets
from tests.api.servers import RawServer, http
from tests.bigquery.rest_api import refused

TOKEN = "google-secret-0123456789"
SOURCE = {"sourceDataset": {"projectId": "123456789012", "datasetId": "shared"}}


def read(server: RawServer, monkeypatch: pytest.MonkeyPatch, **settings: float) -> Dataset | None:
    monkeypatch.setenv(EMULATOR_VARIABLE, f"{server.origin}/")
    datasets = Datasets(None, first_wait=0.001, **settings)
    try:
        return datasets.get("example.com:mine", "octogen_acme")
    finally:
        datasets.close()


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        (
            {
                "type": "LINKED",
                "location": "US",
                "linkedDatasetSource": SOURCE,
                "linkedDatasetMetadata": {"linkState": "LINKED"},
                "access": [{"role": "READER"}],
            },
            Dataset("US", True, True, "projects/123456789012/datasets/shared"),
        ),
        (
            {"type": "LINKED", "linkedDatasetMetadata": {"linkState": "UNLINKED"}},
            Dataset("", True, False, None),
        ),
        (
            {"linkedDatasetSource": SOURCE},
            Dataset("", True, True, "projects/123456789012/datasets/shared"),
        ),
        ({"type": "DEFAULT", "location": "EU"}, Dataset("EU", False, False, None)),
        ({"type": None, "linkedDatasetSource": None}, Dataset("", False, False, None)),
    ],
    ids=["linked", "unlinked", "no type", "ordinary", "nulls"],
)
def test_a_dataset_says_what_it_is_linked_to(
    resource: dict[str, Any], expected: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(lambda _: http(body=resource)) as server:
        assert read(server, monkeypatch) == expected
    (request,) = server.received
    path, _, query = request.target.partition("?")
    assert path == "/bigquery/v2/projects/example.com%3Amine/datasets/octogen_acme"
    assert query == "datasetView=METADATA"


def test_a_dataset_that_is_not_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(lambda _: http(*refused(404, "notFound", "Not found: Dataset."))) as server:
        assert read(server, monkeypatch) is None


def test_a_transient_failure_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [http(*refused(503, "backendError", "Soon.")), http(body={"type": "DEFAULT"})]
    with RawServer(lambda _: answers.pop(0)) as server:
        assert read(server, monkeypatch) == Dataset("", False, False, None)


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (
            http(*refused(403, "accessDenied", "Access Denied: Dataset.")),
            OctogenBigQueryError,
            "Dataset example.com:mine.octogen_acme: BigQuery refused (403 accessDenied: Access "
            "Denied: Dataset). To read datasets, these Google credentials need "
            "bigquery.datasets.get, which roles/bigquery.user on the project has.",
        ),
        (
            http(body=["nonsense"]),
            OctogenBigQueryError,
            "Dataset example.com:mine.octogen_acme: BigQuery's response is not a dataset "
            "(Expected `object`, got `array`). Try again later.",
        ),
        (
            http(*refused(500, "internalError", "Sorry.")),
            OctogenBigQueryUnavailableError,
            "Dataset example.com:mine.octogen_acme: BigQuery did not answer in time "
            "(500 internalError: Sorry). Try again later.",
        ),
        (
            [],
            OctogenBigQueryUnavailableError,
            "Dataset example.com:mine.octogen_acme: BigQuery did not answer in time "
            "(ConnectionError: (",
        ),
    ],
    ids=["denied", "nonsense", "internal", "cut off"],
)
def test_a_dataset_that_cannot_be_read_is_an_error(
    answer: Any, kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(lambda _: answer) as server, pytest.raises(kind) as caught:
        read(server, monkeypatch, deadline=0.01)
    assert str(caught.value).startswith(message)


def test_google_is_asked_with_credentials_and_a_local_server_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    credentials = Credentials(TOKEN)  # type: ignore[no-untyped-call]
    with RawServer(lambda _: http(body={})) as server:
        monkeypatch.setattr(datasets_module, "_ADDRESS", server.origin)
        for local in (False, True):
            if local:
                monkeypatch.setenv(EMULATOR_VARIABLE, server.origin)
            with AnalyticsHub(credentials) as hub:
                assert hub.datasets.get("mine", "octogen_acme")
    sent = [request.headers.get("authorization") for request in server.received]
    assert sent == [f"Bearer {TOKEN}", None]


def test_google_is_not_asked_about_what_a_local_analytics_hub_says() -> None:
    with (
        AnalyticsHub(endpoint="127.0.0.1:1") as hub,
        pytest.raises(
            OctogenBigQueryError, match="it is not looked at, since Analytics Hub is a l"
        ),
    ):
        hub.datasets.get("mine", "octogen_acme")
