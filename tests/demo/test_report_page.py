"""The page of `report` in Chromium: it opens, filters, shows prices on a click, loads nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from octogen_dagster.report.data import report_data
from octogen_dagster.report.page import report_page
from tests.histories import ASSET, day, make_history, product

pytestmark = [
    pytest.mark.slow,
    pytest.mark.world,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium"),
]
HOSTILE = '<img src=x onerror="document.title=1"></script><script>document.title=2</script>'
MANY = 50_000
TIMEOUT = 60_000


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two days of many products; one title is hostile."""
    folder = tmp_path_factory.mktemp("report")
    brands = [{"name": f"Brand {number % 90}"} for number in range(MANY)]
    products = [product(f"product-{number}", 10.0, brand=brands[number]) for number in range(MANY)]
    products[7]["title"] = HOSTILE
    today = [
        {**each, "current_price": 9.0} if number < 500 else each
        for number, each in enumerate(products)
    ]
    frames = [pl.DataFrame(rows, infer_schema_length=None) for rows in (products, today)]
    make_history(folder, {day(1): frames[0], day(1) + timedelta(days=1): frames[1]})
    path = folder / "report.html"
    path.write_text(report_page(report_data(str(folder), asset=ASSET, days=30)))
    return path


@pytest.fixture
def page(report: Path) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"],
        )
        opened = browser.new_page()
        requests: list[str] = []
        errors: list[str] = []
        opened.on("request", lambda request: requests.append(request.url))
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.goto(report.as_uri())
        opened.locator("body[data-ready=yes]").wait_for(timeout=TIMEOUT)
        yield opened
        assert errors == []
        assert requests == [report.as_uri()]
        browser.close()


def test_it_opens_with_many_products_filters_and_draws(page: Page) -> None:
    expect(page.locator("#products-title")).to_have_text(f"{MANY:,} products", timeout=TIMEOUT)
    expect(page.locator("#index svg")).to_be_visible(timeout=TIMEOUT)
    expect(page.locator("#events-title")).to_contain_text("500 price dropped")
    page.select_option("#brand", label="Brand 3")
    expect(page.locator("#products-title")).to_have_text("556 products", timeout=TIMEOUT)
    page.locator("#products tr").first.locator("td").last.click()
    expect(page.locator("#detail-chart svg")).to_be_visible(timeout=TIMEOUT)


def test_a_hostile_title_is_text(page: Page) -> None:
    page.fill("#text", "onerror")
    expect(page.locator("#products-title")).to_have_text("1 product", timeout=TIMEOUT)
    expect(page.locator("#products a")).to_have_text(HOSTILE)
    page.locator("#products tr").first.locator("td").last.click()
    expect(page.locator("#detail-title")).to_have_text(HOSTILE)
    assert page.locator("img").count() == 0
    assert page.title() == "Prices"
