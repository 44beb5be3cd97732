"""The page of `report` in Chromium: it opens, filters, shows prices on a click, loads nothing."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from octogen_dagster import scan_history
from octogen_dagster.alerts import BelowFloor, Undercut
from octogen_dagster.alerts.update import PriceListAlertsUpdate
from octogen_dagster.history.report.data import report_data
from octogen_dagster.history.report.page import report_page
from octogen_dagster.history.tracking import Tracking
from octogen_dagster.position.table import price_position
from octogen_dagster.schemas import PRODUCT_SCHEMA
from tests.demo.report_model import (
    SEPARATOR,
    Model,
    Past,
    category_of,
    first_month,
    own_month,
)
from tests.histories import ASSET, day, make_history, product
from tests.properties.snapshots import Snapshot, Target, put_into

pytestmark = [
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
    return written(folder)


def written(folder: Path) -> Path:
    path = folder / "report.html"
    path.write_text(report_page(report_data(str(folder), asset=ASSET, days=30)))
    return path


@contextmanager
def opened(report: Path, width: int = 1500) -> Iterator[Page]:
    """The page in a browser that is west of Greenwich, where a date begins later than in UTC."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"],
        )
        page = browser.new_page(
            viewport={"width": width, "height": 800}, timezone_id="America/Los_Angeles"
        )
        requests: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(report.as_uri())
        page.locator("body[data-ready=yes]").wait_for(timeout=TIMEOUT)
        yield page
        assert errors == []
        assert requests == [report.as_uri()]
        browser.close()


@pytest.fixture
def page(report: Path) -> Iterator[Page]:
    with opened(report) as page:
        yield page


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


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the catalogs of the model, one of which has brands as texts."""
    folder = tmp_path_factory.mktemp("month")
    for catalog, snapshots in first_month().items():
        brand = PRODUCT_SCHEMA["brand"] if catalog == "acme" else pl.String()
        schema = pl.Schema({**PRODUCT_SCHEMA, "brand": brand})
        make_history(folder, snapshots, catalog, schema=schema)
    return written(folder)


def photographed(page: Page, name: str) -> None:
    """Take a picture of the whole page for a person, if the folder of pictures is named."""
    if folder := os.environ.get("OCTOGEN_SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"{name}.png"), full_page=True)


def labels(page: Page, chart: str) -> list[str]:
    """The values under the pointer, of each place in a chart."""
    found = page.locator(f"#{chart} .layer_1_marks path").evaluate_all(LABELS)
    return [re.sub(r"^.*?(?=(day|brand|prices|from): )", "", label) for label in found]


def rows(page: Page, table: str) -> Counter[tuple[str, ...]]:
    return Counter(tuple(cells) for cells in page.locator(f"#{table} tr").evaluate_all(CELLS))


LABELS = "marks => marks.map(each => each.getAttribute('aria-label'))"
CELLS = "rows => rows.map(row => [...row.cells].map(cell => cell.textContent.trim()))"


def shown(page: Page) -> dict[str, Any]:
    """All that a person reads on the page."""
    page.locator("#main[aria-busy=false]").wait_for(timeout=TIMEOUT)
    tiles = page.locator("#tiles .tile").evaluate_all(
        "tiles => tiles.map(tile => [...tile.children].map(each => each.textContent))"
    )
    products = rows(page, "products")
    before, _, pages = page.locator("#page").inner_text().removeprefix("page ").partition(" of ")
    for _ in range(int(before), int(pages)):
        page.click("#after")
        products += rows(page, "products")
    events = {}
    for kind in page.locator("#kind option").all_inner_texts()[1:]:
        page.select_option("#kind", kind)
        events[kind] = rows(page, "events")
    page.select_option("#kind", "")
    charts = {each: labels(page, each) for each in ("index", "share", "stock", "distribution")}
    return {
        **charts,
        "title": page.locator("#events-title").inner_text(),
        "brands": Counter(labels(page, "brands")),
        "tiles": {name: value for value, name in tiles},
        "products": products,
        "events": events,
    }


def check(page: Page, model: Model) -> None:
    """Compare all that is on the page with a model; of a kind of events it has at most 50."""
    found, expected = shown(page), model.shown()
    for kind, events in expected.pop("events").items():
        of_page = found["events"].pop(kind)
        assert of_page <= events
        assert sizes(of_page) == sizes(events)[:50]
    assert found == {**expected, "events": {}}


def sizes(events: Counter[tuple[str, ...]]) -> list[float]:
    """How much the prices of events changed in percent, the largest first."""
    changes = [cells[-1].removesuffix(" %").replace("\u2013", "0") for cells in events.elements()]
    return sorted((abs(float(change)) for change in changes), reverse=True)


def test_each_number_on_the_page_is_that_of_a_model(month: Path) -> None:
    catalogs = first_month()
    shoes = {SEPARATOR.join(["Shoe", "Boots", "Chelsea"][:depth]) for depth in (1, 2, 3)}

    def is_shoe(past: Past) -> bool:
        return category_of(past.last) in shoes

    def is_of(catalog: str) -> Callable[[Past], bool]:
        return lambda past: past.catalog == catalog

    with opened(month) as page:
        check(page, Model(catalogs))
        page.select_option("#category", "Shoe")
        check(page, Model(catalogs, is_chosen=is_shoe))
        page.select_option("#category", "")
        for catalog in catalogs:
            page.select_option("#catalog", label=catalog)
            check(page, Model(catalogs, is_chosen=is_of(catalog)))
        page.select_option("#currency", label="USD")
        check(page, Model(catalogs, "USD", is_chosen=is_of(catalog)))


@pytest.mark.parametrize("width", [1500, 390])
def test_events_of_own_prices_are_those_of_a_model(month: Path, tmp_path: Path, width: int) -> None:
    own = own_month()
    folder = shutil.copytree(month.parent, tmp_path / "month")
    prices, alerts = Target(), Target()
    tracking = Tracking.of_table(
        ("sku", "product_url"), {name: (name,) for name in ("price", "map_price", "currency")}
    )
    for at in (day(1), day(3, 20)):
        rows = {
            (uuid, f"https://www.acme.example/{uuid}"): {
                "price": of[at][0],
                "map_price": of[at][1],
                "currency": "EUR",
            }
            for uuid, of in own.items()
        }
        put_into(prices, {at: Snapshot({**rows}, None, tracking)}, tracking)
    assert prices.table is not None
    history = scan_history(str(folder), asset=ASSET)
    said = {"own": prices.metadata}
    alerts.store(
        PriceListAlertsUpdate([Undercut(), BelowFloor()], history, prices.table.lazy(), said)
    )
    assert alerts.table is not None
    alerts.table.write_parquet(folder / "octogen_products_price_list_alerts.parquet")
    with opened(written(folder), width) as page:
        check(page, Model(first_month(), own=own))
        page.select_option("#kind", "undercut")
        photographed(page, f"report-own-events-{width}")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.select_option("#kind", "")
        page.select_option("#currency", label="USD")
        check(page, Model(first_month(), "USD", own=own))


def test_a_list_of_events_that_is_cut_says_so_and_hides_no_kind(month: Path) -> None:
    with opened(month) as page:
        counts = Model(first_month()).shown()["events"]
        kinds = Counter(cells[1] for cells in rows(page, "events").elements())
        assert kinds == {kind: min(6, found.total()) for kind, found in counts.items()}
        total = sum(found.total() for found in counts.values())
        expect(page.locator("#events-cut")).to_contain_text(
            f"{kinds.total()} of {total} events, at most 6 per"
        )
        page.select_option("#kind", "price dropped")
        dropped = counts["price dropped"].total()
        expect(page.locator("#events-cut")).to_have_text(f"Showing 50 of {dropped} events.")
        page.select_option("#kind", "appeared")
        expect(page.locator("#events-cut")).to_be_empty()


def test_own_prices_show_who_is_below_and_follow_the_filters(tmp_path: Path) -> None:
    zen = product("zen", 90.0, product_url="https://zen.example/b")
    make_history(tmp_path, {day(1): [product("boots", 80.0, title=HOSTILE)]})
    make_history(tmp_path, {day(1): [zen]}, "zen")
    urls = ["https://www.acme.example/boots", "https://zen.example/b"]
    own = pl.DataFrame(
        {
            "sku": ["<b>4711</b>", "<b>4711</b>", "12"],
            "product_url": [*urls, urls[1]],
            "price": [100.0, 100.0, 45.0],
            "currency": "EUR",
        }
    )
    found = price_position(scan_history(str(tmp_path), asset=ASSET), own)
    found.write_parquet(tmp_path / "octogen_products_position.parquet")
    for width in (1500, 390):
        with opened(written(tmp_path), width) as page:
            expect(page.locator("#own-title")).to_have_text(
                "Price position: lowest price for 1 of 2 SKUs", timeout=TIMEOUT
            )
            assert rows(page, "own") == Counter(
                [
                    (
                        *("<b>4711</b>", "100.00 EUR", "3 of 3", "1.18"),
                        f"{HOSTILE} 80.00 EUR, Zen 90.00 EUR",
                    ),
                    ("12", "45.00 EUR", "1 of 2", "0.50", ""),
                ]
            )
            photographed(page, f"report-own-{width}")
            assert page.evaluate("document.documentElement.scrollWidth") == width
            page.select_option("#catalog", label="acme")
            expect(page.locator("#own tr")).to_have_count(1)
            page.locator("#own td").first.click()
            expect(page.locator("#detail-title")).to_have_text(HOSTILE)


@pytest.mark.parametrize("width", [390, 360])
def test_nothing_overflows_a_phone(month: Path, width: int) -> None:
    with opened(month, width) as page:
        page.locator("#products tr").first.locator("td").last.click()
        page.locator("#detail-chart svg").wait_for(timeout=TIMEOUT)
        page.locator("#main[aria-busy=false]").wait_for(timeout=TIMEOUT)
        beyond = page.locator("body *").evaluate_all(
            "all => all.filter(each => each.getBoundingClientRect().right > innerWidth)"
            ".map(each => each.outerHTML)"
        )
        assert beyond == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        photographed(page, f"report-{width}")


def test_a_sorted_column_says_so(month: Path) -> None:
    with opened(month) as page:
        sorted_column = page.locator("#products-head th[aria-sort]")
        expect(sorted_column).to_have_text("Change")
        for way in ("ascending", "descending"):
            page.click("#products-head th:has-text('Price') button")
            expect(sorted_column).to_have_text("Price")
            assert sorted_column.get_attribute("aria-sort") == way
            arrow = "element => getComputedStyle(element, '::after').content"
            shown = sorted_column.locator("button").evaluate(arrow)
            assert shown.strip('" ') == {"ascending": "\u25b2", "descending": "\u25bc"}[way]
            cells = page.locator("#products td[data-name=Price]").all_inner_texts()
            prices = [
                float(cell.split()[0].replace(",", "")) for cell in cells if cell[0] != "\u2013"
            ]
            euros = [price for price, cell in zip(prices, cells, strict=False) if "EUR" in cell]
            assert euros == sorted(euros, reverse=way == "descending")
        photographed(page, "report-1500")


def test_each_chart_shows_the_values_under_the_pointer(month: Path) -> None:
    with opened(month, 1500) as page:
        page.locator("#products tr").first.locator("td").last.click()
        page.locator("#main[aria-busy=false]").wait_for(timeout=TIMEOUT)
        for chart in ("index", "share", "stock", "brands", "distribution", "detail-chart"):
            page.locator(f"#{chart} .layer_1_marks path").nth(1).hover(timeout=TIMEOUT)
            tip = page.locator("#vg-tooltip-element.visible tr")
            expect(tip.last).to_be_visible(timeout=TIMEOUT)
            told = [": ".join(each.split("\n")).replace("\t", "") for each in tip.all_inner_texts()]
            assert "; ".join(told).replace(" : ", ": ") == labels(page, chart)[1]
