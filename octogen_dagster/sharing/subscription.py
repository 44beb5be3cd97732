"""The facts of a subscription, as Analytics Hub lists it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.cloud import bigquery_analyticshub_v1 as ah

ACTIVE = "STATE_ACTIVE"
STALE = "STATE_STALE"
REVOKED = "STATE_INACTIVE"


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription.

    Attributes:
        name: Its resource name.
        state: `STATE_ACTIVE`, `STATE_STALE`, `STATE_INACTIVE`, or a state that this version does
            not know.
        project: The id of the project of its linked dataset; None if only its number is known.
        dataset_id: The id of its linked dataset; None if it is not known.
    """

    name: str
    state: str
    project: str | None
    dataset_id: str | None

    @classmethod
    def of(cls, subscription: ah.Subscription, known: Mapping[str, str]) -> Self:
        """Read a subscription of Analytics Hub, which names its dataset in any of three fields.

        Args:
            subscription: The subscription.
            known: Dataset ids that are known from elsewhere, by subscription name.
        """
        reference = subscription.destination_dataset.dataset_reference
        places = [(reference.project_id, reference.dataset_id)]
        linked = [*subscription.linked_dataset_map.values(), *subscription.linked_resources]
        for resource in linked:
            _, project, _, dataset_id = (*resource.linked_dataset.split("/"), "", "", "", "")[:4]
            places.append((project, dataset_id))
        named = [place for place in places if place[1]]
        # A query needs the project's id; it does not accept its number.
        ids = [project for project, _ in named if project and not project.isdecimal()]
        return cls(
            name=subscription.name,
            state=state_name(int(subscription.state)),
            project=ids[0] if ids else None,
            dataset_id=named[0][1] if named else known.get(subscription.name),
        )

    @property
    def in_force(self) -> bool:
        """True if the subscription gives access to data."""
        return self.state in (ACTIVE, STALE)


@functools.cache
def state_name(state: int) -> str:
    """The name of a subscription's state, or its number if Google's client knows no name.

    Args:
        state: The number of the state.
    """
    from google.cloud import bigquery_analyticshub_v1 as ah

    try:
        return str(ah.Subscription.State(state).name)
    except ValueError:
        return str(state)
