from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from octogen_dagster.control_plane.secret_files import SecretFile
from octogen_dagster.control_plane.token_endpoint import TokenEndpoint
from octogen_dagster.control_plane.token_refresh import RefreshedToken
from octogen_dagster.control_plane.tools import OctogenMCP
from tests.control_plane.servers import QUICK
from tests.sharing.fixtures import _nothing_from_outside, hub  # noqa: F401
from tests.sharing.hostile_hub import HostileHub as Hub


@pytest.fixture
def refreshed(hub: Hub) -> RefreshedToken:  # noqa: F811
    """The access tokens of the hub's refresh token, which is held in memory."""
    endpoint = TokenEndpoint(hub.token_endpoint, retry=QUICK)
    return RefreshedToken(hub.refresh_token, lambda: hub.client_id, endpoint)


@pytest.fixture
def octogen(hub: Hub, refreshed: RefreshedToken) -> Iterator[OctogenMCP]:  # noqa: F811
    """The control plane of the hub."""
    with OctogenMCP(refreshed, hub.mcp_url, retry=QUICK) as octogen:
        yield octogen


@pytest.fixture
def refresh_file(hub: Hub, tmp_path: Path) -> SecretFile:  # noqa: F811
    """A file with the hub's refresh token, which the hub replaces with each refresh."""
    hub.rotate_refresh_tokens()
    file = SecretFile(tmp_path / "refresh", "refresh token")
    file.path.write_text(hub.refresh_token)
    return file
