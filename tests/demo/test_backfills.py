"""Backfills of 40 catalogs from the UI, as a person starts and sees them.

Screenshots go to the folder that the environment variable OCTOGEN_SCREENSHOTS names.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from playwright.sync_api import expect, sync_playwright

from octogen_dagster.sandbox.server import Sandbox
from tests.demo.test_browser import ARGUMENTS, BROWSER, MAX_WAIT, sees
from tests.ports import free_port

MAX_SECONDS = 600.0
THERE = [f"shop{number:02}" for number in range(38)]
GONE = ["zz-gone-1", "zz-gone-2"]
LOCATION = f"""
import warnings
import dagster as dg
from octogen_dagster import (
    GrantedCatalogs,
    OctogenResource, ParquetSnapshotIOManager, build_product_brands_asset, build_products_asset,
    build_snapshot_checks,
)

warnings.simplefilter("ignore", dg.BetaWarning)
catalogs = dg.StaticPartitionsDefinition({[*THERE, *GONE]})
policies = {{"single": dg.BackfillPolicy.single_run(), "multi": dg.BackfillPolicy.multi_run(10)}}
assets, checks = [], []
for name, policy in policies.items():
    products = build_products_asset(name, partitions_def=catalogs, backfill_policy=policy)
    assets.append(products)
    checks += build_snapshot_checks(products)
assets.append(build_product_brands_asset(products, backfill_policy=policy))
defs = dg.Definitions(
    assets=assets,
    asset_checks=checks,
    executor=dg.in_process_executor,
    resources={{
        "octogen": OctogenResource(catalog_source=GrantedCatalogs()),
        "io_manager": ParquetSnapshotIOManager(base_dir="snapshots"),
    }},
)
"""


COLOURS = """
names => Object.fromEntries([...document.querySelectorAll("*")]
    .filter(each => !each.children.length && names.includes(each.textContent))
    .map(each => {
        const small = other =>
            !other.textContent && other.offsetWidth > 4 && other.offsetWidth < 16;
        let row = each, dot = null;
        while (!dot) {
            row = row.parentElement;
            dot = [...row.querySelectorAll("div, span")].find(small);
        }
        return [each.textContent, getComputedStyle(dot).backgroundColor];
    }))
"""
"""The colour of the dot beside each name in the list of partitions."""


@pytest.mark.world
@pytest.mark.timeout(900)
@pytest.mark.skipif(BROWSER is None, reason="it needs Chromium: apt-get install chromium")
def test_a_person_backfills_40_catalogs(tmp_path: Path) -> None:
    screenshots = Path(os.environ.get("OCTOGEN_SCREENSHOTS", tmp_path / "screenshots"))
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    (tmp_path / "location.py").write_text(LOCATION)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (
        Sandbox(catalogs=dict.fromkeys(THERE, 20)) as sandbox,
        dg.DagsterInstance.from_config(str(tmp_path)) as instance,
        dagster_dev(tmp_path, sandbox.environment, port),
        sync_playwright() as driver,
    ):
        wait_for(lambda: answers(url))
        browser = driver.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 1800})  # shows the whole list
        page.set_default_timeout(MAX_WAIT)
        expect.set_options(MAX_WAIT)
        page.goto(f"{url}/asset-groups")
        page.get_by_text("Materialize all…").click()
        page.get_by_role("button", name="All", exact=True).click()
        page.get_by_role("button", name="Launch backfill").click()
        sees(page, "Created backfill")
        wait_for(lambda: has_ended(instance))

        # Each partition is reported by itself: the two that are not there have failed.
        for asset in ("single", "multi"):
            page.goto(f"{url}/assets/{asset}?view=partitions&status=FAILED,MATERIALIZED")
            sees(page, "Failed (2)", "Materialized (38)", "Materializing (0)", "Missing (0)")
            sees(page, THERE[-1], GONE[-1])
            colours = page.evaluate(COLOURS, [*THERE, *GONE])
            assert len({colours[key] for key in THERE}) == 1
            assert len({colours[key] for key in GONE}) == 1
            assert colours[THERE[0]] != colours[GONE[0]]
            page.screenshot(path=screenshots / f"backfill-{asset}.png")
        page.goto(f"{url}/assets/multi_brands?view=partitions")
        sees(page, "Materialized (38)", "Materializing (0)")
        browser.close()

        runs = instance.get_runs()
        of = Counter(key.path[-1] for run in runs for key in run.asset_selection or ())
        assert (of["single"], of["multi"]) == (1, 4)
        assert all(len(run.asset_selection or ()) == 1 for run in runs), (
            "brands have their own runs"
        )


def has_ended(instance: dg.DagsterInstance) -> bool:
    """True if the only backfill has ended, in whichever way."""
    backfills: Sequence[Any] = instance.get_backfills()
    return {each.status.value for each in backfills} == {"COMPLETED_FAILED"}


@contextlib.contextmanager
def dagster_dev(folder: Path, environment: Mapping[str, str], port: int) -> Iterator[None]:
    """Run Dagster's UI and daemon with `location.py`."""
    command = [sys.executable, "-m", "dagster", "dev", "-f", "location.py", "-p", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment, "DAGSTER_HOME": str(folder)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=20)


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/server_info", timeout=5).close()
    except OSError:
        return False
    return True


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + MAX_SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.2)
