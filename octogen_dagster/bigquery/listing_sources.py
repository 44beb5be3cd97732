"""Where the listing sensor finds listings, as a code location writes it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from octogen_dagster.sharing.listings import (
    ControlPlaneListings,
    ExchangeListings,
    Found,
    StaticListings,
)

# Dagster ends a tick after 60 s; what comes of the reading must still be stored.
TICK_TIMEOUT = 35.0


class Source(Protocol):
    """Where a sensor finds listings."""

    @property
    def resource_keys(self) -> Collection[str]:
        """The resources it needs."""

    def listings(self, resources: Any) -> Found:
        """The listings that are there now.

        Raises:
            OctogenError: They cannot be read.
        """


@dataclass(frozen=True)
class ExchangeSource:
    """The listings of a data exchange; needs viewer rights on it, which subscribers often lack.

    Args:
        exchange: `projects/<project>/locations/<location>/dataExchanges/<exchange>`.
    """

    exchange: str
    resource_keys = frozenset({"analytics_hub"})

    def listings(self, resources: Any) -> Found:
        """`Source.listings`."""
        with resources.analytics_hub.hub(TICK_TIMEOUT) as hub:
            return ExchangeListings(hub, self.exchange).listings()


@dataclass(frozen=True)
class OctogenSource:
    """The listings that Octogen shares with your organisation, with its status of each.

    Args:
        catalogs: The catalogs to look at; none means all.
    """

    catalogs: Sequence[str] = ()
    resource_keys = frozenset({"analytics_hub", "octogen_control_plane"})

    def listings(self, resources: Any) -> Found:
        """`Source.listings`."""
        octogen = resources.octogen_control_plane
        with octogen.control_plane(TICK_TIMEOUT) as control_plane:
            return ControlPlaneListings(
                control_plane,
                project=resources.analytics_hub.project,
                principal=octogen.principal,
                catalogs=self.catalogs,
            ).listings()


@dataclass(frozen=True)
class StaticSource:
    """Listings that are written down.

    Args:
        resources: Their resource names.

    Raises:
        OctogenBigQueryInputError: One of them is not the name of a listing.
    """

    resources: Sequence[str]
    resource_keys = frozenset({"analytics_hub"})

    def __post_init__(self) -> None:
        StaticListings(self.resources)

    def listings(self, resources: Any) -> Found:
        """`Source.listings`."""
        return StaticListings(self.resources).listings()
