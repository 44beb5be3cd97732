"""The chart of brands: a picture in Markdown."""

import base64
import re
from typing import Any
from xml.etree import ElementTree

import polars as pl

from octogen_dagster.frames.brands import BRANDS_SCHEMA
from octogen_dagster.snapshots.brand_chart import MAX_BRANDS, brand_chart

SVG = "{http://www.w3.org/2000/svg}"


def chart(*brands: dict[str, Any]) -> ElementTree.Element:
    text = brand_chart(pl.LazyFrame(list(brands), schema=BRANDS_SCHEMA))
    match = re.fullmatch(r"!\[[^\]]+\]\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)", text)
    assert match
    return ElementTree.fromstring(base64.b64decode(match[1]))


def brand(name: str | None, products: int, *prices: float, currency: str = "EUR") -> dict[str, Any]:
    quartiles = dict(zip(("price_p25", "price_p50", "price_p75"), prices, strict=False))
    return {"brand": name, "products": products, "currency": currency, **quartiles}


def texts(svg: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in svg.iter(f"{SVG}text")]


def test_a_bar_is_as_long_as_its_share_of_the_largest_brand() -> None:
    svg = chart(brand("Acme", 200), brand("Zen", 50))
    widths = [float(bar.attrib["width"]) for bar in svg.iter(f"{SVG}rect")]
    assert widths == [150.0, 37.5]
    assert texts(svg)[2:] == ["Acme", "200", "Zen", "50"]


def test_prices_of_a_currency_have_one_scale() -> None:
    svg = chart(
        brand("Acme", 3, 10.0, 20.0, 40.0),
        brand("Zen", 2, 10.0, 10.0, 20.0),
        brand("Kyo", 1, 1000.0, 2000.0, 4000.0, currency="JPY"),
    )
    medians = [float(dot.attrib["cx"]) for dot in svg.iter(f"{SVG}circle")]
    assert medians == [460.0, 425.0, 460.0]
    assert [text for text in texts(svg) if "." in text] == [
        "20.00 EUR",
        "10.00 EUR",
        "2,000.00 JPY",
    ]


def test_the_chart_has_eight_brands_and_none_without_a_name() -> None:
    svg = chart(brand(None, 99), *(brand(f"Brand {number}", 20 - number) for number in range(12)))
    assert len(list(svg.iter(f"{SVG}rect"))) == MAX_BRANDS
    assert texts(svg)[2] == "Brand 0"


def test_any_name_is_text() -> None:
    svg = chart(brand('<b>"Ampersand & Co"</b>\x00 with a name that is too long', 1))
    assert texts(svg)[2] == '<b>"Ampersand & Co"</…'


def test_there_is_no_chart_without_brands() -> None:
    assert brand_chart(BRANDS_SCHEMA.to_frame().lazy()) == ""
