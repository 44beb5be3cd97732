"""The demo in a browser, as a person sees it.

Its screenshots go to the folder that the environment variable OCTOGEN_SCREENSHOTS names.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.demo.command import ends_all, running_ui

BROWSER = shutil.which("chromium")
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"]
MAX_WAIT = 120_000  # milliseconds, for what takes some seconds on an idle machine
LOCATION = "octogen_dagster.demo.definitions"
SENSORS = ("octogen_products_catalog_sensor", "octogen_listing_sensor", "octogen_automation")
ASSETS = (
    "octogen_catalogs",
    "_datasets",
    "octogen_products",
    "_brands",
    "_changes",
    "_history",
    "_alerts",
    "_table",
    "sweaters",
    "sweaters_details",
)
"""What the graph shows of their names: it shortens them in the middle."""


def sees(page: Page, *texts: str | re.Pattern[str]) -> None:
    """Wait until the page shows texts."""
    for text in texts:
        expect(page.get_by_text(text).filter(visible=True).first).to_be_visible()


@pytest.mark.world
@pytest.mark.timeout(900)
@pytest.mark.skipif(BROWSER is None, reason="it needs Chromium: apt-get install chromium")
def test_a_person_sees_the_product_in_the_demo(tmp_path: Path) -> None:
    screenshots = Path(os.environ.get("OCTOGEN_SCREENSHOTS", tmp_path / "screenshots"))
    with running_ui(tmp_path) as (process, url, pages, _printed), sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(MAX_WAIT)
        expect.set_options(MAX_WAIT)
        try:
            home, graph, partitions, checks, changes, history = pages[:6]
            alerts, price_list_alerts, position, comparison, automation = pages[6:]
            page.goto(home)
            sees(page, LOCATION, *SENSORS)
            page.screenshot(path=screenshots / "home.png")
            page.goto(f"{url}/runs")
            sees(page, "octogen_automation", re.compile("[0-9] assets"))
            expect(page.get_by_text("Manually launched")).to_have_count(0)
            page.goto(graph)
            sees(page, "catalogs", "prices", "history")
            page.keyboard.press("Alt+e")  # all groups are expanded
            sees(page, *ASSETS)
            page.screenshot(path=screenshots / "graph.png")
            page.goto(partitions)
            sees(page, "octogen/preview", "octogen/cost_usd", re.compile("prices? moved"))
            page.screenshot(path=screenshots / "asset.png")
            page.goto(checks)
            sees(page, "Failed", re.compile("far from the median of its currency"))
            page.screenshot(path=screenshots / "checks.png")
            page.goto(changes)
            sees(page, "octogen/appeared", "→")
            page.goto(history)
            sees(page, "octogen/disappeared", "octogen/reappeared")
            page.screenshot(path=screenshots / "history.png")
            page.goto(alerts)
            sees(page, "octogen/largest_alerts", re.compile("[0-9] new event"))
            page.screenshot(path=screenshots / "alerts.png")
            page.goto(price_list_alerts)
            sees(page, re.compile("[0-9] price-list rows?"))
            page.goto(position)
            sees(page, "octogen/matched", "octogen/by_category")
            expect(page.get_by_alt_text("The price index")).to_be_visible()
            page.screenshot(path=screenshots / "position.png")
            page.goto(comparison)
            sees(page, "price_comparison", "difference")
            page.goto(f"{url}/assets/competitor_matches?view=events")
            sees(page, "octogen/covered", "octogen/matched_by_url")
            page.screenshot(path=screenshots / "matches.png")
            page.goto(automation)
            sees(
                page,
                "octogen_products_catalog_sensor",
                "octogen_listing_sensor",
                "octogen_url_list_sensor",
                "sweaters_schedule",
            )
            page.goto(f"{url}/assets/octogen_products")
            sees(page, re.compile("products in each catalog"), "Price before a discount")
            page.screenshot(path=screenshots / "columns.png")
        except BaseException:
            page.screenshot(path=screenshots / "failed.png")
            raise
        finally:
            browser.close()
        if Path("/proc").is_dir():
            process.kill()
            ends_all(tmp_path)
