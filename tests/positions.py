"""A price position as a person would work it out, without Polars."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from statistics import median
from typing import Any
from urllib.parse import quote, unquote, urlsplit

Row = dict[str, Any]
TRACKING = re.compile(
    r"(utm_.*|[a-z]*clid|msclkid|gclsrc|[gw]braid|mc_[ce]id|igshid|srsltid)", re.I
)
OF_CHOICE = ("matched", "no_price", "out_of_stock", "other_currency", "no_currency", "gone")


def page(url: str | None) -> str | None:
    """A form of an address that is the same for all spellings of its page."""
    if url is None or not re.match("https?://", url.strip(), re.I):
        return None
    parts = urlsplit(url.strip())
    host = (parts.hostname or "").rstrip(".").removeprefix("www.")
    port = "" if parts.port in (None, 80, 443) else f":{parts.port}"
    kept = [each for each in parts.query.split("&") if not TRACKING.fullmatch(each.split("=")[0])]
    query = "&".join(sorted(_coded(each) for each in kept if each))
    path = "/".join(_coded(each) for each in parts.path.rstrip("/").split("/"))
    return f"{host}{port}{path}?{query}"


def _coded(text: str) -> str:
    """A text with the percent codes that it needs, one way of writing each."""
    pieces = re.split("(%[0-9a-fA-F]{2})", text)
    bare = "".join(
        piece.upper()
        if place % 2 and not re.fullmatch(r"[A-Za-z0-9._~-]", unquote(piece))
        else unquote(piece)
        if place % 2
        else quote(piece, safe="".join(map(chr, range(33, 127))))
        for place, piece in enumerate(pieces)
    )
    return bare


def known(price: float | None) -> float | None:
    """A price that can be compared."""
    return price if price is not None and math.isfinite(price) and price > 0 else None


def status(theirs: Row, currency: str | None) -> str:
    """How a competitor's product stands to prices in a currency."""
    price, unit = known(theirs["current_price"]), theirs["currency"]
    if theirs["valid_to"] is not None:
        return "gone"
    if price is not None and unit is None:
        return "no_currency"
    if price is not None and currency is not None and unit.lower() != currency.lower():
        return "other_currency"
    if theirs["in_stock"] is False or theirs["is_active"] is False:
        return "out_of_stock"
    return "no_price" if price is None else "matched"


def _stock(theirs: Row) -> bool | None:
    return False if theirs["is_active"] is False else theirs["in_stock"]


def _newest(theirs: Row) -> tuple[Any, ...]:
    """What is greatest of the row that says how a product is now, of those of several histories."""
    price, stock = known(theirs["current_price"]), _stock(theirs)
    return (
        *(theirs["valid_to"] is None, theirs["valid_to"] or theirs["valid_from"]),
        *(theirs["valid_from"], -(price or math.inf), theirs["currency"] or ""),
        -1 if stock is None else stock,
    )


def _since(theirs: Row, products: Sequence[Row]) -> Any:
    """Since when some history goes on saying what a row says of the price and the stock."""

    def said(row: Row) -> tuple[Any, ...]:
        values = (row["uuid"], page(row["product_url"]), row["currency"])
        return (*values, known(row["current_price"]), _stock(row))

    alike = [each for each in products if said(each) == said(theirs)]
    since = theirs["valid_from"]
    while earlier := [
        each["valid_from"]
        for each in alike
        if each["valid_from"] < since and (each["valid_to"] is None or each["valid_to"] >= since)
    ]:
        since = min(earlier)
    return since


def position(products: Sequence[Row], own: Sequence[Row]) -> list[Row]:
    """The position of own rows among products, of each of which a history has one row."""

    def competitor(row: Row) -> tuple[str, Row | None]:
        there = [each for each in products if page(each["product_url"]) == page(row["product_url"])]
        newest = {each["uuid"]: each for each in sorted(there, key=_newest)}
        here = list(newest.values())
        found = [(status(each, row["currency"]), each) for each in here if page(row["product_url"])]
        order = [
            (OF_CHOICE.index(said), known(each["current_price"]) or math.inf, each["uuid"], place)
            for place, (said, each) in enumerate(found)
        ]
        return found[min(order)[3]] if found else ("not_found", None)

    chosen = [competitor(row) for row in own]
    table = []
    for row, (said, theirs) in zip(own, chosen, strict=True):
        price = known(row["own_price"]) if row["currency"] else None
        of_sku = {
            page(other["product_url"]): (float(each["current_price"]), each["currency"].lower())
            for other, (say, each) in zip(own, chosen, strict=True)
            if other["sku"] == row["sku"]
            and (other["currency"] or "").lower() == (row["currency"] or "").lower()
            and each is not None
            and say == "matched"
        }
        units = {unit for _, unit in of_sku.values()}
        prices = sorted(each for each, _ in of_sku.values()) if len(units) == 1 else []
        match = known(theirs["current_price"]) if theirs and said == "matched" else None
        middle = median(prices) if prices else None
        table.append(
            {
                "status": said if price else "no_own_price",
                "competitor_uuid": theirs and theirs["uuid"],
                "competitor_since": theirs and _since(theirs, products),
                "difference": price - match if price and match else None,
                "index": price / match if price and match else None,
                "competitors": len(prices),
                "cheapest_price": prices[0] if prices else None,
                "rank": 1 + sum(each < price for each in prices) if price and prices else None,
                "median_price": middle,
                "median_index": price / middle if price and middle else None,
            }
        )
    return table
