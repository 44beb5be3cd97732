"""Listing sources for the listing sensor."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from octogen_dagster.background import Deadline
from octogen_dagster.sharing.hub import Listings, named_listings
from octogen_dagster.sharing.names import checked_exchange
from octogen_dagster.sharing.octogen import octogen_listings
from octogen_dagster.validation import require_extras

# Dagster ends a tick after 60 s; the sensor needs the rest to store its result.
TICK_TIMEOUT = 35.0


class Source(Protocol):
    """A source of listings for the listing sensor."""

    @property
    def resource_keys(self) -> Collection[str]:
        """The resource keys that the source requires."""

    def listings(self, resources: Any, within: Deadline | None = None) -> Listings:
        """Read the current listings. `resources` contains the required resources."""


@dataclass(frozen=True)
class ExchangeSource:
    """The listings in a data exchange.

    Requires the viewer role on the exchange, which subscribers often do not have. Listings that
    share a Pub/Sub topic or only metadata are excluded, because they have no linked dataset.

    Args:
        exchange: `projects/<project>/locations/<location>/dataExchanges/<exchange>`.
        only_catalogs: Also exclude commercial listings and coverage lists.

    Raises:
        OctogenBigQueryInputError: `exchange` is not an exchange name.
    """

    exchange: str
    only_catalogs: bool = True
    resource_keys = frozenset({"analytics_hub"})

    def __post_init__(self) -> None:
        require_extras("ExchangeSource", "bigquery")
        checked_exchange(self.exchange)

    def listings(self, resources: Any, within: Deadline | None = None) -> Listings:
        """See `Source.listings`."""
        with resources.analytics_hub.hub(within=within or Deadline.after(TICK_TIMEOUT)) as hub:
            found: Listings = hub.list_listings(self.exchange, only_catalogs=self.only_catalogs)
        return found


@dataclass(frozen=True)
class OctogenSource:
    """The listings that Octogen shares with your organization.

    Each listing includes its status at Octogen.

    Args:
        catalogs: Keys of the catalogs whose listings are read. By default, all listings are read.
    """

    catalogs: Sequence[str] = ()
    resource_keys = frozenset({"analytics_hub", "octogen_control_plane"})

    def __post_init__(self) -> None:
        require_extras("OctogenSource", "bigquery", "mcp")

    def listings(self, resources: Any, within: Deadline | None = None) -> Listings:
        """See `Source.listings`."""
        octogen = resources.octogen_control_plane
        seconds = within.left if within else TICK_TIMEOUT
        with octogen.control_plane(max(seconds, 0.1)) as control_plane:
            return octogen_listings(
                control_plane,
                project=resources.analytics_hub.project,
                principal=octogen.principal,
                catalogs=self.catalogs,
            )


@dataclass(frozen=True)
class StaticSource:
    """A fixed list of listings.

    Args:
        resources: The listings' resource names.

    Raises:
        OctogenBigQueryInputError: A name is not a listing name.
    """

    resources: Sequence[str]
    resource_keys = frozenset({"analytics_hub"})

    def __post_init__(self) -> None:
        named_listings(self.resources)

    def listings(self, resources: Any, within: Deadline | None = None) -> Listings:
        """See `Source.listings`."""
        return named_listings(self.resources)
