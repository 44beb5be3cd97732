"""The place in which a block runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from octogen_dagster.sandbox.server import Sandbox
from tests.docs.blocks import Block
from tests.docs.places import CATALOG, Place, generation_for


@pytest.fixture
def place(block: Block) -> Iterator[Place]:
    """Yield a local Octogen of the generation that the block needs."""
    generation = generation_for(block)
    with Sandbox(catalogs={CATALOG: 60}, generation=generation, hub=True) as sandbox:
        sandbox.hub.share(CATALOG)
        yield Place(sandbox)
