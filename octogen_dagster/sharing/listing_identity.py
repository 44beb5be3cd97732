"""Tells if two resource names are of one listing, whose project has an id and a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octogen_dagster.sharing.resource_names import ListingName

if TYPE_CHECKING:
    from octogen_dagster.sharing.analytics_hub import AnalyticsHub


class ListingIdentity:
    """Compares names of listings, and asks Analytics Hub where the names alone do not tell.

    The project ids and numbers that it learned are remembered: use one object for a pass over many
    listings, and a new one for the next pass.

    Args:
        hub: Analytics Hub.
    """

    def __init__(self, hub: AnalyticsHub) -> None:
        self._hub = hub
        self._same_projects: dict[frozenset[str], bool] = {}

    def matches(self, one: ListingName, other: ListingName) -> bool | None:
        """True if both names are of one listing.

        Returns:
            None if these credentials may see the listing under neither name.

        Raises:
            OctogenBigQueryError: Analytics Hub cannot be read.
        """
        same = one.matches(other)
        if same is not None:
            return same
        projects = frozenset((one.project, other.project))
        if projects not in self._same_projects:
            looked_up = self._look_up(one, other)
            if looked_up is None:
                return None
            self._same_projects[projects] = looked_up
        return self._same_projects[projects]

    def _look_up(self, one: ListingName, other: ListingName) -> bool | None:
        first = self._hub.listing(str(one))
        if first is None:
            # One listing could be seen under both names.
            return None if self._hub.listing(str(other)) is None else False
        name = ListingName.parse(first.name)
        same = name.matches(other)
        if same is None:
            second = self._hub.listing(str(other))
            if second is None:
                return False
            same = name.matches(ListingName.parse(second.name))
            if same is None:
                # Each response has the name that was requested, so the contents decide.
                first.name = second.name
                same = bool(first == second)
        return same
