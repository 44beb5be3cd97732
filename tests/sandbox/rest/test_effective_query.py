"""What ran, as it is stored in a cursor and shown to the caller."""

from octogen_dagster.sandbox.rest.effective_query import (
    EffectiveFacet,
    EffectiveQuery,
    Relaxation,
    sent_facets,
)
from octogen_dagster.sandbox.rest.request_bodies import Facet

FACET = EffectiveFacet(name="fit", values=["slim"], source="generated")


def test_it_survives_a_cursor() -> None:
    query = EffectiveQuery(
        text="boots",
        understood=True,
        facets=[FACET],
        price_min=5,
        relaxation=Relaxation(rounds=1, dropped_facets=[FACET]),
    )
    assert EffectiveQuery.model_validate_json(query.model_dump_json()) == query


def test_facets_of_a_request_are_the_callers() -> None:
    sent = sent_facets([Facet(name="fit", values=["slim"])])
    assert sent == [EffectiveFacet(name="fit", values=["slim"], source="caller")]
