"""The place in which a block runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from octogen_dagster.sandbox.server import Sandbox
from tests.docs.places import CATALOG, Place


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Yield a local Octogen as a reader starts it."""
    with Sandbox(catalogs={CATALOG: 60}, hub=True) as sandbox:
        sandbox.hub.share(CATALOG)
        yield Place(sandbox)
