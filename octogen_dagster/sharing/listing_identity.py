"""Whether two names are of one listing: projects have an id and a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octogen_dagster.sharing.resource_names import ListingName

if TYPE_CHECKING:
    from octogen_dagster.sharing.analytics_hub import AnalyticsHub


class ListingIdentity:
    """Tells names of listings apart, with Analytics Hub's help where they cannot be told alone.

    What it says of a project's id and number is remembered: use one for a pass over many listings,
    and a new one for the next pass.

    Args:
        hub: Analytics Hub.
    """

    def __init__(self, hub: AnalyticsHub) -> None:
        self._hub = hub
        self._same_projects: dict[frozenset[str], bool] = {}

    def __call__(self, one: ListingName, other: ListingName) -> bool | None:
        """Whether both names are of one listing.

        Returns:
            None when these credentials may see neither of them, so that it cannot be told.

        Raises:
            OctogenBigQueryError: Analytics Hub does not say.
        """
        same = one.matches(other)
        if same is not None:
            return same
        projects = frozenset((one.project, other.project))
        if projects not in self._same_projects:
            looked_up = self._looked_up(one, other)
            if looked_up is None:
                return None
            self._same_projects[projects] = looked_up
        return self._same_projects[projects]

    def _looked_up(self, one: ListingName, other: ListingName) -> bool | None:
        mine = self._hub.listing(str(one))
        if mine is None:
            # One listing could be seen under both names.
            return None if self._hub.listing(str(other)) is None else False
        name = ListingName.parse(mine.name)
        same = name.matches(other)
        if same is None:
            theirs = self._hub.listing(str(other))
            if theirs is None:
                return False
            same = name.matches(ListingName.parse(theirs.name))
            if same is None:
                # It answers with the name that it was asked for: then the contents decide.
                mine.name = theirs.name
                same = bool(mine == theirs)
        return same
