"""Sources of the listing sensor, as a user writes them in a definitions file."""

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
    """A source of listings for the sensor."""

    @property
    def resource_keys(self) -> Collection[str]:
        """The keys of the resources that it needs."""

    def listings(self, resources: Any, within: Deadline | None = None) -> Listings:
        """Read the listings that are there now, with the resources of the sensor's context."""


@dataclass(frozen=True)
class ExchangeSource:
    """The listings of a data exchange.

    Reading them needs viewer rights on the exchange, which subscribers often lack. Listings of
    Pub/Sub topics and those that share their metadata only are left out: they cannot become linked
    datasets.

    Args:
        exchange: `projects/<project>/locations/<location>/dataExchanges/<exchange>`.
        only_catalogs: Leave out commercial listings and those of coverage lists too.

    Raises:
        OctogenBigQueryInputError: `exchange` is not the name of an exchange.
    """

    exchange: str
    only_catalogs: bool = True
    resource_keys = frozenset({"analytics_hub"})

    def __post_init__(self) -> None:
        require_extras("ExchangeSource", "bigquery")
        checked_exchange(self.exchange)

    def listings(self, resources: Any, within: Deadline | None = None) -> Listings:
        """`Source.listings`."""
        with resources.analytics_hub.hub(within=within or Deadline.after(TICK_TIMEOUT)) as hub:
            found: Listings = hub.list_listings(self.exchange, only_catalogs=self.only_catalogs)
        return found


@dataclass(frozen=True)
class OctogenSource:
    """The listings that Octogen shares with your organisation, with Octogen's status of each.

    Args:
        catalogs: Keys of the catalogs to read; empty for all.
    """

    catalogs: Sequence[str] = ()
    resource_keys = frozenset({"analytics_hub", "octogen_control_plane"})

    def __post_init__(self) -> None:
        require_extras("OctogenSource", "bigquery", "mcp")

    def listings(self, resources: Any, within: Deadline | None = None) -> Listings:
        """`Source.listings`."""
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
        resources: Resource names of the listings.

    Raises:
        OctogenBigQueryInputError: One of them is not the name of a listing.
    """

    resources: Sequence[str]
    resource_keys = frozenset({"analytics_hub"})

    def __post_init__(self) -> None:
        named_listings(self.resources)

    def listings(self, resources: Any, within: Deadline | None = None) -> Listings:
        """`Source.listings`."""
        return named_listings(self.resources)
