"""Sessions with Octogen's MCP in a process of their own, for the fork server."""

from __future__ import annotations

import os
from collections.abc import Mapping

from octogen_dagster import OctogenControlPlaneResource
from tests.forked import processes


def sessions(environment: Mapping[str, str], principal: str, number: int) -> None:
    """Open sessions one after the other, and call a tool in each."""
    os.environ.update(environment)
    control_plane = OctogenControlPlaneResource(principal=principal)
    for _ in range(number):
        with control_plane.control_plane() as octogen:
            octogen.listings()


def side_by_side(
    environment: Mapping[str, str], principal: str, *, at_once: int, number: int
) -> None:
    """Open sessions in several processes at once, each of which must succeed."""
    started = [
        processes.Process(target=sessions, args=(environment, principal, number))
        for _ in range(at_once)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * at_once
