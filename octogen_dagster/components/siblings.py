"""Two components of one project: what they must not both have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from octogen_dagster.errors import OctogenComponentError

if TYPE_CHECKING:
    from octogen_dagster.components.component import OctogenComponent


def check_siblings(component: OctogenComponent, components: Sequence[OctogenComponent]) -> None:
    """Check that a component shares no resource key with another one.

    Dagster merges the definitions of all components, and tells of a key that two of them have
    without saying where.

    Args:
        component: The component.
        components: All components of the project.

    Raises:
        OctogenComponentError: Another component has the same name, or linked datasets as well.
    """
    if sum(each.name == component.name for each in components) > 1:
        raise OctogenComponentError(
            f"Two OctogenComponents of this project have the name {component.name!r}, so their "
            "resources and catalogs would be mixed. Write attributes.name in the YAML of one of "
            "them, such as name: other_shops."
        )
    if component.linked_datasets and sum(bool(each.linked_datasets) for each in components) > 1:
        raise OctogenComponentError(
            "Two OctogenComponents of this project have linked_datasets. Write all of them in "
            "one, or put the components into two projects."
        )
