"""Take the pictures of the pages in `docs/`, from thirty days of the demo.

uv run python -m tests.docs.pictures

It needs Chromium and takes five minutes.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright
from vl_convert import svg_to_png

from tests.demo.command import ends_all, environment, running_ui
from tests.demo.test_browser import ARGUMENTS, BROWSER, MAX_WAIT, sees
from tests.docs.blocks import ROOT
from tests.examples.test_notebook import read, run

FOLDER = ROOT / "docs" / "images"
SIZE = ("--days", "30", "--catalogs", "4", "--products", "300")
WIDE, HIGH = 1260, 870
REPORT = "octogen-dagster report --base-dir octogen-demo/snapshots --out report.html"
SEEN = {
    "graph.png": ("octogen_products?view=lineage&lineageScope=neighbors", "octogen_catalogs"),
    "asset.png": ("octogen_products?view=partitions&partition=strada", "octogen/prices"),
    "position.png": ("octogen_products_position?view=events", "octogen/median_index"),
}
"""The asset's page for each picture of Dagster's UI, and a text on it."""


def take(page: Page, name: str, height: int = HIGH) -> None:
    page.screenshot(path=FOLDER / name, clip={"x": 0, "y": 0, "width": WIDE, "height": height})


def take_pages(page: Page, url: str, report: Path) -> None:
    page.goto(url)
    page.get_by_text("Hide navigation").click()
    for name, (place, text) in SEEN.items():
        page.goto(f"{url}/assets/{place}")
        sees(page, text)
        page.wait_for_load_state("networkidle")
        take(page, name)
    page.goto(report.as_uri())
    sees(page, "Price index (first price = 100)")
    take(page, "report.png", height=780)


def main() -> None:
    expect.set_options(MAX_WAIT)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        folder = Path(name)
        with running_ui(folder, *SIZE) as (process, url, _pages, _printed):
            subprocess.run(REPORT, shell=True, cwd=folder, env=environment(), check=True)
            browser = driver.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
            page = browser.new_page(viewport={"width": WIDE, "height": HIGH})
            page.set_default_timeout(MAX_WAIT)
            take_pages(page, url, folder / "report.html")
            browser.close()
            os.environ["OCTOGEN_SNAPSHOTS"] = str(folder / "octogen-demo" / "snapshots")
            (folder / "notebook").mkdir()
            *_, both = run(read("history.ipynb"), folder / "notebook")
            (FOLDER / "history.png").write_bytes(svg_to_png(both["image/svg+xml"], scale=1.25))
            process.kill()
            ends_all(folder)


if __name__ == "__main__":
    main()
