"""A fault of a page hits a search, and the example of docs/testing.md shows that it did."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox

pytest_plugins = ["pytester"]

PAGE = Path(__file__).parents[2] / "docs/testing.md"
EXAMPLE = re.compile(r'^```python title="test_pipeline.py"\n(.*?)^```$', re.DOTALL | re.MULTILINE)


def test_a_fault_of_a_page_hits_that_page_of_a_search_and_nothing_else() -> None:
    with (
        Sandbox(catalogs=["strada"], products=3, generation="current") as sandbox,
        httpx.Client(headers={"Authorization": f"Bearer {sandbox.api_key}"}) as client,
    ):
        sandbox.inject(Fault("cut", page=1, times=1))
        assert client.get(f"{sandbox.base_url}/domains/{sandbox.hosts[0]}").status_code == 200
        assert client.get(f"{sandbox.base_url}/me").status_code == 200
        counts = client.post(
            f"{sandbox.base_url}/products/facet-counts", json={"facet_names": ["gender"]}
        )
        assert counts.headers["content-length"] == str(len(counts.content))
        with pytest.raises(httpx.RemoteProtocolError):
            client.post(f"{sandbox.base_url}/products/search", json={"limit": 1})
        found = client.post(f"{sandbox.base_url}/products/search", json={"limit": 1})
        assert len(found.json()["items"]) == 1


def test_the_list_of_the_older_service_is_not_a_page_of_a_search() -> None:
    with Sandbox(catalogs=1, generation="seed", faults=[Fault("status", 503, page=1)]) as sandbox:
        headers = {"Authorization": f"Bearer {sandbox.api_key}"}
        assert httpx.get(f"{sandbox.base_url}/catalogs", headers=headers).status_code == 200


def test_the_example_fails_without_its_fault_and_without_rows(pytester: pytest.Pytester) -> None:
    found = EXAMPLE.search(PAGE.read_text())
    assert found
    fault, query = 'Fault("cut", page=1, times=1)', 'ProductSearch(q="boots")'
    assert fault in found[1]
    assert query in found[1]
    pytester.makepyfile(
        test_as_it_is=found[1],
        test_without_its_fault=found[1].replace(fault, 'Fault("latency", 0.0)'),
        test_without_rows=found[1].replace(query, 'ProductSearch(q="astrolabe")'),
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    result.assert_outcomes(passed=1, failed=2)
    assert "assert [('latency',)] == [('cut',), ()]" in result.stdout.str()
    assert "assert 0 > 0" in result.stdout.str()
