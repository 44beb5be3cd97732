"""One rate limit for all runs: eight at once, in processes of their own, share a small bucket."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from octogen_dagster.sandbox.request_log import ReceivedRequest
from octogen_dagster.sandbox.server import Sandbox

RUNS = 8
PAGES = 8
PAGE_SIZE = 10
REQUESTS_A_MINUTE = 240
RESERVE = REQUESTS_A_MINUTE // 5  # what `OctogenResource` leaves to others by default
RUN = f"""
import sys
from typing import Any
import dagster as dg
from octogen_dagster import (
    OctogenResource, ParquetSnapshotIOManager, ProductSearch, build_products_asset,
    catalog_partitions,
)

class OctogenAtTheSignal(OctogenResource):
    def scan(self, *arguments: Any, **options: Any) -> Any:
        print("ready", flush=True)
        sys.stdin.readline()
        return super().scan(*arguments, **options)

catalog, snapshots = sys.argv[1:]
products = build_products_asset(
    "products", ProductSearch(page_size={PAGE_SIZE}), partitions_def=catalog_partitions
)
with dg.DagsterInstance.ephemeral() as instance:
    instance.add_dynamic_partitions(catalog_partitions.name, [catalog])
    result = dg.materialize(
        [products],
        partition_key=catalog,
        instance=instance,
        resources={{
            "octogen": OctogenAtTheSignal(),
            "io_manager": ParquetSnapshotIOManager(base_dir=snapshots),
        }},
    )
(made,) = result.asset_materializations_for_node("products")
print(made.metadata["dagster/partition_row_count"].value)
print(made.metadata["octogen/limiter_seconds"].value)
"""


@pytest.mark.timeout(240)
def test_eight_runs_at_once_share_the_bucket_and_none_fails_or_starves(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(RUN)
    with (
        Sandbox(catalogs=RUNS, products=PAGES * PAGE_SIZE) as shops,
        httpx.Client(headers={"Authorization": f"Bearer {shops.api_key}"}) as other,
        ExitStack() as processes,
    ):
        runs: dict[str, subprocess.Popen[str]] = {}
        for entry in other.get(f"{shops.base_url}/catalogs").json():
            run = subprocess.Popen(
                [sys.executable, script, entry["catalog"], tmp_path / "snapshots"],
                env={**os.environ, **shops.environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            runs[entry["catalog"]] = processes.enter_context(run)
            processes.callback(run.kill)
        for run in runs.values():
            assert run.stdout.readline() == "ready\n", run.communicate()[1]
        _spend_all_but_the_reserve(shops, other)
        before = len(shops.requests)
        for run in runs.values():
            run.stdin.write("go\n")
            run.stdin.flush()
        said = {catalog: run.communicate(timeout=120) for catalog, run in runs.items()}
        requests = shops.requests[before:]

    for catalog, (output, errors) in said.items():
        assert runs[catalog].returncode == 0, errors
        rows, limiter_seconds = output.split()
        assert int(rows) == PAGES * PAGE_SIZE
        assert float(limiter_seconds) > 0
    # They needed more than there was, and kept to a pace at which nothing is refused.
    assert RUNS * PAGES > RESERVE
    assert Counter(request.status for request in requests) == {200: RUNS * PAGES}
    assert _most_pages_meanwhile(requests) <= PAGES // 2


def _spend_all_but_the_reserve(shops: Sandbox, other: httpx.Client) -> None:
    """Let somebody else in the organisation have what the runs may spend at once."""
    shops.set_rate_limit(REQUESTS_A_MINUTE)
    remaining = REQUESTS_A_MINUTE
    while remaining > RESERVE:
        answer = other.get(f"{shops.base_url}/catalogs")
        remaining = int(answer.headers["X-RateLimit-Remaining"])


def _most_pages_meanwhile(requests: list[ReceivedRequest]) -> int:
    """How many pages one run got, at most, while another waited for its next one."""
    most = 0
    meanwhile: dict[str, Counter[str]] = {}
    for request in requests:
        catalog = request.body["catalog"]
        meanwhile.pop(catalog, None)
        for pages in meanwhile.values():
            pages[catalog] += 1
            most = max(most, pages[catalog])
        if request.page < PAGES:
            meanwhile[catalog] = Counter()
    return most
