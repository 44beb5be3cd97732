"""Errors of Google's libraries become errors of this project that say what to do."""

from __future__ import annotations

from typing import Any

import google.api_core.exceptions
import google.auth.exceptions
import pytest

from octogen_dagster.errors import (
    OctogenBigQueryError,
    OctogenBigQueryInputError,
    OctogenBigQueryUnreachableError,
    Persistence,
)
from octogen_dagster.sharing.google_errors import (
    ANALYTICS_HUB,
    BIGQUERY,
    GoogleService,
    translate_google_errors,
)
from octogen_dagster.sharing.names import ListingName, checked_dataset_id
from tests.messages import Golden

SUBJECT = "Table a.b.c"

# The constructors of both libraries have no types.
exceptions: Any = google.api_core.exceptions
auth: Any = google.auth.exceptions


def translated(service: GoogleService, error: Exception) -> OctogenBigQueryError:
    """The error of this project for one of Google's."""
    with pytest.raises(OctogenBigQueryError) as caught, translate_google_errors(service, SUBJECT):
        raise error
    return caught.value


@pytest.mark.parametrize("service", [ANALYTICS_HUB, BIGQUERY], ids=["hub", "bigquery"])
def test_credentials_that_are_missing_or_refused_say_how_to_log_in(
    golden: Golden, service: GoogleService
) -> None:
    missing = translated(service, auth.DefaultCredentialsError("None found.\n"))
    golden("errors", missing)
    refused = translated(service, auth.RefreshError("Revoked."))
    golden("errors", refused)
    assert type(missing) is type(refused) is OctogenBigQueryError


@pytest.mark.parametrize("service", [ANALYTICS_HUB, BIGQUERY], ids=["hub", "bigquery"])
@pytest.mark.parametrize("is_wrapped", [False, True], ids=["itself", "of a metadata server"])
def test_a_token_endpoint_that_does_not_answer_is_unavailable(
    golden: Golden, service: GoogleService, is_wrapped: bool
) -> None:
    failure = auth.TransportError("Connection refused")
    if is_wrapped:
        wrapper = auth.RefreshError(failure)
        wrapper.__cause__ = failure
        failure = wrapper
    error = translated(service, failure)
    assert type(error) is OctogenBigQueryUnreachableError
    golden("errors", error)


@pytest.mark.parametrize(
    ("failure", "persistence", "verb"),
    [
        (exceptions.Unknown("Odd."), Persistence.PASSING, "failed (UNKNOWN"),
        (exceptions.ResourceExhausted("Odd."), Persistence.PASSING, "failed (RESOURCE_EXHAUSTED"),
        (exceptions.MethodNotImplemented("Odd."), Persistence.PERMANENT, "request (UNIMPLEMENTED"),
        (exceptions.InvalidArgument("Odd."), Persistence.PERMANENT, "request (INVALID_ARGUMENT"),
        (auth.RefreshError("Odd.", retryable=True), Persistence.PASSING, "token endpoint failed"),
    ],
)
def test_a_failure_passes_and_a_refusal_lasts(
    failure: Exception, persistence: Persistence, verb: str
) -> None:
    error = translated(ANALYTICS_HUB, failure)
    assert error.persistence is persistence
    assert verb in str(error)


def test_a_refusal_names_the_code_of_the_service_and_its_advice(golden: Golden) -> None:
    missing = exceptions.NotFound("No such thing.", errors=[{"reason": "notFound"}])
    golden("errors", translated(BIGQUERY, missing))
    odd = exceptions.Conflict("Twice.", errors=[{"reason": "duplicate", "message": "It is there."}])
    golden("errors", translated(BIGQUERY, odd))


LISTING = "projects/octo/locations/us/dataExchanges/catalogs/listings/acme"


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (LISTING, True),
        (LISTING.replace("us", "US"), True),
        (LISTING.replace("octo", "123"), True),
        (LISTING.replace("us", "eu"), False),
        (LISTING.replace("catalogs", "others"), False),
        (LISTING.replace("acme", "zen"), False),
    ],
)
def test_which_names_are_of_one_listing(other: str, same: bool) -> None:
    assert (ListingName.parse(LISTING).key == ListingName.parse(other).key) == same


@pytest.mark.parametrize(
    ("listing", "dataset"),
    [
        ("acme", "octogen_acme"),
        ("north-peak.v2", "octogen_north_peak_v2"),
        ("éa", "octogen__a"),
        ("12_3", "octogen_12_3"),
        ("目录", "octogen___"),
    ],
)
def test_the_default_dataset(listing: str, dataset: str) -> None:
    assert ListingName.parse(LISTING.replace("acme", listing)).default_dataset_id == dataset
    assert checked_dataset_id(dataset) == dataset


@pytest.mark.parametrize("dataset", ["", "a-b", "p.d", "a b", "é", "x" * 1025, "a\n"])
def test_a_dataset_id_that_cannot_be_one(golden: Golden, dataset: str) -> None:
    with golden.raises(OctogenBigQueryInputError):
        checked_dataset_id(dataset)
