"""What a search filters and ranks by, whichever generation it was asked in.

In the current generation it is shown to the caller as `effectiveQuery`.
"""

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from octogen_dagster.sandbox.rest.request_bodies import Facet


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class EffectiveFacet(_Part):
    """A filter: products have one of `values`.

    Attributes:
        name: The name of the facet.
        values: The values, compared without case.
        source: `caller` if it was sent, `generated` if it was understood.
    """

    name: str
    values: list[str]
    source: Literal["caller", "generated"]


class Relaxation(_Part):
    """The understood facets that were dropped because nothing matched.

    Attributes:
        rounds: The number of stages that were applied.
        declined_rounds: The number of stages that still found nothing.
        dropped_facets: The facets that were dropped.
    """

    rounds: int = 0
    declined_rounds: int = 0
    dropped_facets: list[EffectiveFacet] = []


class EffectiveQuery(_Part):
    """The text, filters and bounds of a search. None and empty lists restrict nothing."""

    text: str = ""
    understood: bool = False
    catalogs: list[str] | None = None
    facets: list[EffectiveFacet] = []
    exclude_facets: list[EffectiveFacet] = []
    price_min: float | None = None
    price_max: float | None = None
    brand_quality_min: float | None = None
    brand_quality_max: float | None = None
    similar_to_brands: list[str] | None = None
    relaxation: Relaxation | None = None


def sent_facets(facets: Iterable[Facet]) -> list[EffectiveFacet]:
    """Return facets of a request as those of an effective query."""
    return [
        EffectiveFacet(name=facet.name, values=facet.values, source="caller") for facet in facets
    ]
