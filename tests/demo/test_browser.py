"""The demo in a browser, as a person sees it.

Its screenshots go to the folder that the environment variable OCTOGEN_SCREENSHOTS names.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import polars as pl
import pytest
from playwright.sync_api import Locator, Page, Response, ViewportSize, expect, sync_playwright

from tests.demo.command import command, environment, free_port

BROWSER = shutil.which("chromium")
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"]
SIZE: ViewportSize = {"width": 1280, "height": 800}
MAX_WAIT = 120  # seconds, for what takes some seconds on an idle machine
CATALOGS = ("harbor-and-pine", "northpeak")
ASSETS = (
    "octogen_catalogs",
    "octogen_linked_datasets",
    "octogen_products",
    "octogen_products_brands",
    "octogen_products_changes",
    "sweaters",
    "sweaters_details",
)
AUTOMATIONS = (
    "octogen_automation",
    "octogen_catalog_sensor",
    "octogen_listing_sensor",
    "sweaters_schedule",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(BROWSER is None, reason="it needs Chromium: apt-get install chromium"),
]


class Demo:
    """A running demo.

    Args:
        url: The address of the UI.
        folder: The folder that it was started in.
        output: What it prints.
    """

    def __init__(self, url: str, folder: Path, output: IO[str]) -> None:
        self.url = url
        self._folder = folder
        self._output = output

    @property
    def opened(self) -> str:
        """The page that the demo opens in the browser. Wait until it does."""
        return (self._folder / "opened").read_text().strip()

    def snapshot(self, name: str) -> pl.DataFrame:
        """Read a snapshot of an asset without partitions."""
        return pl.read_parquet(self._folder / f"octogen-demo/snapshots/{name}.parquet")

    def wait_for_line(self, beginning: str) -> list[str]:
        """Read what the demo prints, up to a line with this beginning."""
        lines = []
        for line in self._output:
            lines.append(line)
            if line.startswith(beginning):
                return lines
        raise AssertionError("".join(lines))

    def places(self) -> Iterator[str]:
        """Read the pages that the demo recommends at its end."""
        for line in self._output:
            page, _, what = line.strip().partition("  ")
            assert page.startswith(self.url)
            assert what
            yield page
            if "/automation" in page:
                return


@contextlib.contextmanager
def running_demo(folder: Path) -> Iterator[Demo]:
    """Run `octogen-dagster demo --ui` until the block ends."""
    port = str(free_port())
    os.mkfifo(folder / "opened")
    opened = shlex.quote(f"echo $0 > {folder}/opened")
    with subprocess.Popen(
        command("--catalogs", str(len(CATALOGS)), "--ui", "--port", port),
        cwd=folder,
        env={**environment(), "BROWSER": f"sh -c {opened} %s"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        try:
            yield Demo(f"http://127.0.0.1:{port}", folder, process.stdout)
        finally:
            process.send_signal(signal.SIGINT)
            process.stdout.read()


class Person:
    """A person with a browser.

    Args:
        page: A page of the browser.
        screenshots: The folder for screenshots.
    """

    def __init__(self, page: Page, screenshots: Path) -> None:
        self.page = page
        self.screenshots = screenshots

    def sees(self, *texts: str | re.Pattern[str], within: Locator | None = None) -> None:
        """Wait until the page shows texts."""
        place = self.page.locator("body") if within is None else within
        for text in texts:
            expect(place.get_by_text(text).filter(visible=True).first).to_be_visible()

    def clicks(self, name: str, within: Locator | None = None) -> None:
        """Click a button. Its accessible name may begin with the name of its icon."""
        place = self.page if within is None else within
        place.get_by_role("button", name=name).first.click()

    def takes_screenshot(self, name: str) -> None:
        self.page.screenshot(path=self.screenshots / f"{name}.png")


@contextlib.contextmanager
def person(screenshots: Path) -> Iterator[Person]:
    """Open a browser; take a screenshot of what is shown when the block fails."""
    screenshots.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(MAX_WAIT * 1000)
        expect.set_options(MAX_WAIT * 1000)
        someone = Person(page, screenshots)
        try:
            yield someone
        except BaseException:
            someone.takes_screenshot("failed")
            raise
        finally:
            browser.close()


def test_a_person_sees_the_product_in_the_demo(tmp_path: Path) -> None:
    screenshots = Path(os.environ.get("OCTOGEN_SCREENSHOTS", tmp_path / "screenshots"))
    with running_demo(tmp_path) as demo, person(screenshots) as someone:
        demo.wait_for_line("The Dagster UI runs at ")
        sees_the_graph_fill(someone, demo)
        first_day = demo.wait_for_line("Day 1: ")
        sees_the_graph(someone, demo)
        printed = "".join([*first_day, *demo.wait_for_line("Done.")])
        assert not re.search("DEBUG|WARNING|Error", printed), printed
        visits_what_the_demo_recommends(someone, demo)
        sees_a_failed_check(someone, demo)
        sees_what_changed(someone, demo)
        backfills_all_catalogs(someone, demo)
        changes_a_search_in_the_launchpad(someone, demo)
        sees_products(someone, demo)
        switches_a_sensor_off_and_on(someone, demo)
        sees_all_runs(someone, demo)
        sees_the_backfill_end(someone, demo)


def sees_the_graph_fill(someone: Person, demo: Demo) -> None:
    someone.page.goto(demo.opened)
    someone.sees("Global asset lineage", *ASSETS)
    someone.takes_screenshot("first-page")


def visits_what_the_demo_recommends(someone: Person, demo: Demo) -> None:
    for place in demo.places():
        someone.page.goto(place)
        someone.sees(re.compile("octogen_products|sweaters"))


def backfills_all_catalogs(someone: Person, demo: Demo) -> None:
    page = someone.page
    page.goto(f"{demo.url}/assets/octogen_products")
    someone.clicks("Materialize")
    dialog = page.get_by_role("dialog").last
    dialog.get_by_role("button", name="All", exact=True).click()
    someone.sees(f"{len(CATALOGS)} partitions", *CATALOGS, within=dialog)
    someone.takes_screenshot("backfill-dialog")
    someone.clicks("Launch backfill", within=dialog)
    expect(dialog).to_be_hidden()


def sees_the_backfill_end(someone: Person, demo: Demo) -> None:
    someone.page.goto(f"{demo.url}/runs?view=backfills")
    someone.sees(f"{len(CATALOGS)} partitions", "octogen_products", "Success")
    someone.takes_screenshot("backfills")


def changes_a_search_in_the_launchpad(someone: Person, demo: Demo) -> None:
    page = someone.page
    prices = demo.snapshot("sweaters")["current_price"]
    limit = int(prices.quantile(0.5) or 0)
    page.goto(f"{demo.url}/assets/sweaters")
    page.get_by_role("button", name="Materialize").locator("xpath=following::button[1]").click()
    page.get_by_role("menuitem", name="Open launchpad").click()
    dialog = page.get_by_role("dialog").last
    someone.sees("All defaults expanded", "No errors", within=dialog)
    dialog.get_by_text("price_max: 100").click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(f"ops: {{sweaters: {{config: {{price_max: {limit}}}}}}}")
    someone.sees(f"price_max: {limit}", "No errors", within=dialog)
    someone.takes_screenshot("launchpad")
    someone.clicks("Materialize", within=dialog)
    page.wait_for_url("**/runs/*")
    someone.sees("Success", "STEP_SUCCESS")
    someone.takes_screenshot("run")
    page.goto(f"{demo.url}/assets/sweaters")
    someone.sees(re.compile(rf'"price_max": {limit}\b'))
    someone.takes_screenshot("search")
    found = demo.snapshot("sweaters")["current_price"]
    assert 0 < len(found) < len(prices)
    assert found.is_between(0, limit).all()


def switches_a_sensor_off_and_on(someone: Person, demo: Demo) -> None:
    page = someone.page
    page.goto(f"{demo.url}/automation")
    someone.sees(*AUTOMATIONS)
    row = page.locator("[data-index]").filter(has_text="octogen_catalog_sensor")
    switch = row.get_by_role("checkbox").nth(1)  # the first one selects the row
    for is_on in (False, True):
        expect(switch).to_be_checked(checked=not is_on)
        expect(switch).to_be_enabled()
        switch.focus()
        with page.expect_response(_is_switched):
            page.keyboard.press("Space")
        expect(switch).to_be_checked(checked=is_on)
        page.reload()
    expect(switch).to_be_checked()
    row.get_by_role("img", name="info").hover()
    someone.sees("Requests octogen_products for each catalog that is new or was indexed again")
    someone.takes_screenshot("automation")


def _is_switched(response: Response) -> bool:
    """True if Dagster has taken that a sensor is switched on or off."""
    return bool(re.search(r"mutation \w*Sensor", response.request.post_data or ""))


def sees_products(someone: Person, demo: Demo) -> None:
    page = someone.page
    page.goto(f"{demo.url}/assets/octogen_products")
    someone.sees("The products of each catalog.", "list<struct>", "Price before a reduction")
    someone.takes_screenshot("columns")
    page.goto(f"{demo.url}/assets/octogen_products?view=partitions")
    for catalog in CATALOGS:
        page.get_by_text(catalog, exact=True).first.click()
        someone.sees("octogen/preview", f"https://www.{catalog.replace('-', '')}.example")
    someone.sees("octogen/preview", "octogen/cost_usd")
    page.get_by_text("octogen/search", exact=True).scroll_into_view_if_needed()
    someone.takes_screenshot("products")
    page.emulate_media(color_scheme="dark")
    someone.takes_screenshot("products-dark")
    page.emulate_media(color_scheme="light")
    page.goto(f"{demo.url}/assets/sweaters")
    someone.clicks("Plots")
    someone.sees("dagster/row_count", "octogen/cost_usd", "octogen/price_p50_usd")
    page.get_by_text("octogen/price_p50_usd").scroll_into_view_if_needed()
    someone.takes_screenshot("plots")


def sees_a_failed_check(someone: Person, demo: Demo) -> None:
    page = someone.page
    page.goto(f"{demo.url}/assets/octogen_products?view=checks")
    page.get_by_text("prices", exact=True).first.click()
    someone.sees("Failed", re.compile(r"bad prices in .*: 1 .* Compare the sample with the shop"))
    someone.takes_screenshot("checks")
    page.get_by_text("[Show Markdown]").last.click()
    someone.sees("octogen/sample", "far from the median", within=page.get_by_role("dialog").last)
    someone.takes_screenshot("sample")


def sees_what_changed(someone: Person, demo: Demo) -> None:
    page = someone.page
    page.goto(f"{demo.url}/assets/octogen_products_changes?view=partitions")
    page.get_by_text(CATALOGS[0], exact=True).first.click()
    someone.sees("octogen/appeared", "octogen/preview", "→")
    page.get_by_text("→").last.scroll_into_view_if_needed()
    someone.takes_screenshot("changes")


def sees_all_runs(someone: Person, demo: Demo) -> None:
    someone.page.goto(demo.url)
    someone.clicks("1hr")
    someone.sees("octogen_automation", "octogen_catalog_sensor", "octogen_listing_sensor")
    someone.takes_screenshot("timeline")


def sees_the_graph(someone: Person, demo: Demo) -> None:
    page = someone.page
    page.goto(f"{demo.url}/asset-groups")
    someone.sees(*ASSETS)
    someone.clicks("Hide navigation")
    page.reload()  # which fits the graph into its place
    someone.sees(re.compile("/ 10 Passed"), "100% filled", "BigQuery")
    someone.takes_screenshot("graph")
