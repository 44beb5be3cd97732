"""The account of the API key, as each generation of the sandbox answers it."""

from __future__ import annotations

import pytest

from octogen_dagster.api.client import OctogenClient
from octogen_dagster.errors import OctogenNotFoundError
from octogen_dagster.sandbox.server import Sandbox


async def test_the_account_says_whose_key_it_is_and_its_rate_limit() -> None:
    with Sandbox(catalogs=1, generation="current", requests_per_minute=600) as sandbox:
        async with OctogenClient(api_key=sandbox.api_key, base_url=sandbox.base_url) as client:
            me = await client.get_me()
    assert me.organization
    assert me.organization.type == "catalog_partner"
    assert me.rate_limit
    assert me.rate_limit.limit == 600


async def test_the_seed_generation_has_no_account() -> None:
    with Sandbox(catalogs=1, generation="seed") as sandbox:
        async with OctogenClient(api_key=sandbox.api_key, base_url=sandbox.base_url) as client:
            with pytest.raises(
                OctogenNotFoundError, match="The account of the API key failed: 404"
            ):
                await client.get_me()
