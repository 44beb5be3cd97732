"""Take the pictures of the pages in `docs/`, from thirty days of the demo.

uv run python -m tests.docs.pictures

It needs Chromium and takes five minutes. With the argument `slack`, it only takes the picture of
the Slack message, in seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path
from typing import Any

import polars as pl
from playwright.sync_api import Page, expect, sync_playwright
from vl_convert import svg_to_png

from octogen_dagster.alerts import SlackNotifier
from octogen_dagster.schemas import ALERTS_SCHEMA
from tests.api.servers import RawServer, http, in_turn
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
EVENTS = [
    ("undercut", "4711", "Linen dress", 99.0, 79.0),
    ("undercut", "4712", "Straw hat", 25.0, 21.5),
    ("price_dropped", "4713", "Canvas sneakers", 69.0, 59.0),
    ("out_of_stock", "4714", "Leather belt", None, None),
]
"""Rule, SKU, title, and the prices before and after, for each event in the Slack message."""
MESSAGE = """
<!doctype html>
<meta charset="utf-8">
<style>
  body { width: 640px; margin: 0; padding: 16px 20px; box-sizing: border-box; color: #1d1c1d;
         font: 15px/1.5 Lato, "Noto Sans", "DejaVu Sans", sans-serif; }
  a { color: #1264a3; text-decoration: none; }
  p { margin: 0; white-space: pre-wrap; }
</style>
"""


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


def take_slack_message(page: Page) -> None:
    """Send a message to a local server and render the received rich text."""
    with RawServer(in_turn(http(body="ok"))) as server:
        notify = SlackNotifier(webhook_url=f"{server.origin}/services/T000/B000/secret")
        notify(pl.DataFrame([event(*values) for values in EVENTS], schema=ALERTS_SCHEMA))
    [received] = server.received
    page.set_content(f"{MESSAGE}<p>{rich_text(received.json['blocks']).strip()}</p>")
    page.locator("body").screenshot(path=FOLDER / "slack-message.png")


def event(
    rule: str, sku: str, title: str, before: float | None, after: float | None
) -> dict[str, Any]:
    change = round(100 * (after / before - 1), 1) if before and after else None
    return {
        "rule": rule,
        "sku": sku,
        "title": title,
        "catalog_key": "acme",
        "product_url": f"https://www.acme.com/p/{sku}",
        "before": before,
        "after": after,
        "change_percent": change,
        "currency": "EUR",
    }


def rich_text(blocks: list[dict[str, Any]]) -> str:
    """Return Slack's rich text as HTML, without links that lead anywhere."""
    parts = [part for block in blocks for each in block["elements"] for part in each["elements"]]
    written = [
        f'<a href="#">{escape(part["text"])}</a>' if "url" in part else escape(part["text"])
        for part in parts
    ]
    return "".join(written)


def main() -> None:
    expect.set_options(MAX_WAIT)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        take_slack_message(browser.new_page(viewport={"width": 640, "height": 400}))
        browser.close()
    if sys.argv[1:] == ["slack"]:
        return
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
