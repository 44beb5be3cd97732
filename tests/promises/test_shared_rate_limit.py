"""Eight runs at once, each in its own process, share one small rate limit."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest

from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.sandbox.state import ReceivedRequest
from tests.forked import processes
from tests.promises.rate_limit_runs import PAGE_SIZE, by_dagster

RUNS = 8
KEYS = [f"shop-{number}" for number in range(RUNS)]
PAGES = 8
REQUESTS_A_MINUTE = 240
RESERVE = REQUESTS_A_MINUTE // 5  # what `OctogenResource` leaves to others by default
POLL_SECONDS = 120.0

RunPipe: TypeAlias = "Connection[Any, Any]"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_eight_runs_at_once_share_the_bucket_and_none_fails_or_starves(tmp_path: Path) -> None:
    with (
        Sandbox(catalogs=KEYS, products=PAGES * PAGE_SIZE, generation="seed") as shops,
        httpx.Client(headers={"Authorization": f"Bearer {shops.api_key}"}) as other,
        ExitStack() as started,
    ):
        runs: list[RunPipe] = []
        for entry in other.get(f"{shops.base_url}/catalogs").json():
            mine, its = processes.Pipe()
            arguments = (entry["catalog"], shops.environment, str(tmp_path / "snapshots"), its)
            process = processes.Process(target=by_dagster, args=arguments)
            process.start()
            its.close()  # otherwise the end of the process would not be noticed here
            started.callback(process.kill)
            runs.append(mine)
        assert [_receive(run) for run in runs] == ["ready"] * RUNS
        _spend_all_but_the_reserve(shops, other)
        before = len(shops.requests)
        for run in runs:
            run.send("go")
        messages = [_receive(run) for run in runs]
        requests = shops.requests[before:]

    for rows, rate_limit_wait_seconds in messages:
        assert rows == PAGES * PAGE_SIZE
        assert rate_limit_wait_seconds > 0
    # The runs needed more than the limit allowed at once, and none was refused.
    assert RUNS * PAGES > RESERVE
    # Each run lists the catalogs once more at its end.
    assert Counter(request.status for request in requests) == {200: RUNS * (PAGES + 1)}
    # A busy machine may delay a run, but no run waits while another gets all of its pages.
    searches = [request for request in requests if request.path == "/products/search"]
    assert _most_pages_meanwhile(searches) < PAGES - 1


def _receive(run: RunPipe) -> Any:
    """Receive a message of a run; raise EOFError if the run failed."""
    assert run.poll(POLL_SECONDS)
    return run.recv()


def _spend_all_but_the_reserve(shops: Sandbox, other: httpx.Client) -> None:
    """Let another client of the organisation spend what the runs could spend at once."""
    shops.set_rate_limit(REQUESTS_A_MINUTE)
    remaining = REQUESTS_A_MINUTE
    while remaining > RESERVE:
        response = other.get(f"{shops.base_url}/catalogs")
        remaining = int(response.headers["X-RateLimit-Remaining"])


def _most_pages_meanwhile(requests: list[ReceivedRequest]) -> int:
    """Return the most pages that one run got while another waited for its next one."""
    most = 0
    meanwhile: dict[str, Counter[str]] = {}
    for request in requests:
        assert request.body
        catalog = request.body["catalog"]
        meanwhile.pop(catalog, None)
        for pages in meanwhile.values():
            pages[catalog] += 1
            most = max(most, pages[catalog])
        if request.page < PAGES:
            meanwhile[catalog] = Counter()
    return most
