"""Sessions with Octogen's MCP in a process of their own, for the fork server."""

from __future__ import annotations

import os
from collections.abc import Mapping

from octogen_dagster import OctogenControlPlaneResource


def sessions(environment: Mapping[str, str], principal: str, number: int) -> None:
    """Open sessions one after the other, and call a tool in each."""
    os.environ.update(environment)
    control_plane = OctogenControlPlaneResource(principal=principal)
    for _ in range(number):
        with control_plane.control_plane() as octogen:
            octogen.listings()
