"""What prices, stock and time mean, in plain Python: what the package is compared with."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from octogen_dagster.alerts import (
    AlertRule,
    Appeared,
    BackInStock,
    BelowFloor,
    Disappeared,
    OutOfStock,
    PriceBelow,
    PriceDropped,
    PriceListRule,
    PriceRose,
    Undercut,
)

Row = dict[str, Any]
Moment = tuple[datetime, datetime | None, float | None, float | None]
"""When a rule became true, since when it was not, and the prices before and after."""
TRACKING = re.compile(
    r"(utm_.*|[a-z]*clid|msclkid|gclsrc|[gw]braid|mc_[ce]id|igshid|srsltid)", re.I
)
OF_CHOICE = ("matched", "no_price", "out_of_stock", "other_currency", "no_currency", "gone")


@functools.cache
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


def unit_of(row: Row) -> str | None:
    currency: str | None = row["currency"]
    return currency and currency.upper()


def stock_of(row: Row) -> bool | None:
    in_stock: bool | None = row["in_stock"]
    return False if row["is_active"] is False else in_stock


def status(theirs: Row, currency: str | None) -> str:
    """How a competitor's product stands to prices in a currency."""
    price, unit = known(theirs["current_price"]), unit_of(theirs)
    if theirs["valid_to"] is not None:
        return "gone"
    if price is not None and unit is None:
        return "no_currency"
    if price is not None and currency is not None and unit != currency.upper():
        return "other_currency"
    if stock_of(theirs) is False:
        return "out_of_stock"
    return "no_price" if price is None else "matched"


def _newest(theirs: Row) -> tuple[Any, ...]:
    """What is greatest of the row that says how a product is now, of those of several histories."""
    price, stock = known(theirs["current_price"]), stock_of(theirs)
    return (
        *(theirs["valid_to"] is None, theirs["valid_to"] or theirs["valid_from"]),
        *(theirs["valid_from"], -(price or math.inf), theirs["currency"] or ""),
        -1 if stock is None else stock,
    )


def _since(theirs: Row, products: Sequence[Row]) -> Any:
    """Since when some history goes on saying what a row says of the price and the stock."""

    def said(row: Row) -> tuple[Any, ...]:
        return (
            page(row["product_url"]),
            row["currency"],
            known(row["current_price"]),
            stock_of(row),
        )

    same = [each for each in products if each["uuid"] == theirs["uuid"]]
    alike = [each for each in same if said(each) == said(theirs)]
    since = theirs["valid_from"]
    while earlier := [
        each["valid_from"]
        for each in alike
        if each["valid_from"] < since and (each["valid_to"] is None or each["valid_to"] >= since)
    ]:
        since = min(earlier)
    return since


def position(products: Sequence[Row], own: Sequence[Row]) -> list[Row]:
    """The price position of own rows among the rows of a history."""

    on_page: dict[str | None, list[Row]] = {}
    for each in products:
        on_page.setdefault(page(each["product_url"]), []).append(each)

    def competitor(row: Row) -> tuple[str, Row | None]:
        there = on_page.get(page(row["product_url"]), [])
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
        price = known(row["price"]) if row["currency"] else None
        of_sku = {
            page(other["product_url"]): (float(each["current_price"]), unit_of(each))
            for other, (say, each) in zip(own, chosen, strict=True)
            if other["sku"] == row["sku"]
            and unit_of(other) == unit_of(row)
            and each is not None
            and say == "matched"
        }
        units = {unit for _, unit in of_sku.values()}
        prices = sorted(each for each, _ in of_sku.values()) if len(units) == 1 else []
        match = known(theirs["current_price"]) if theirs and said == "matched" else None
        middle = median(prices) if prices else None
        table.append(
            {
                "status": said if price else "unpriced",
                "competitor_uuid": theirs and theirs["uuid"],
                "competitor_price": theirs and known(theirs["current_price"]),
                "competitor_in_stock": theirs and stock_of(theirs),
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


def remembered(rows: list[Row]) -> list[Row]:
    """The rows, with what was last known of the product at the time of each."""
    state: Row = dict.fromkeys(("unit", "price", "price_unit", "stock"))
    states = []
    for row in rows:
        state = {**state, "unit": unit_of(row) or state["unit"]}
        if price := known(row["current_price"]):
            state |= {"price": price, "price_unit": state["unit"]}
        if (stock := stock_of(row)) is not None:
            state["stock"] = stock
        states.append({**row, **state})
    return states


def begun(rows: list[Row], index: int, *names: str) -> datetime:
    """Since when a product had the values that it has in a row."""
    while index and all(rows[index - 1][name] == rows[index][name] for name in names):
        index -= 1
    since: datetime = rows[index]["valid_from"]
    return since


def reference(
    rule: Any, rows: list[Row], index: int, at: datetime
) -> tuple[float, datetime] | None:
    """The price that a rule compares with, and since when it was the price."""
    unit = rows[index]["unit"]
    if rule.against == "before":
        since = begun(rows, index - 1, "price", "price_unit")
        return rows[index - 1]["price"], since
    begin = at - timedelta(days=rule.days)
    priced = [
        (
            row["price"],
            begun(rows, number, "price", "price_unit"),
            max(row["valid_from"], begin),
            min(row["valid_to"], at),
        )
        for number, row in enumerate(rows[:index])
        if row["valid_to"] > begin and row["price_unit"] == unit and row["price"] is not None
    ]
    if not priced:
        return None
    if rule.against == "lowest":
        price, since, *_ = min(priced, key=lambda each: (each[0], -each[1].timestamp()))
        return price, since
    hours = sorted(
        price
        for price, _, start, end in priced
        for _ in range(int((end - start) / timedelta(hours=1)))
    )
    return hours[(len(hours) - 1) // 2], begin


def is_beyond(rule: Any, price: float, than: float) -> bool:
    by = than - price if isinstance(rule, PriceDropped) else price - than
    percent = rule.percent is None or by >= than * rule.percent / 100 - 1e-9
    return by > 0 and percent and (rule.amount is None or by >= rule.amount)


def moments(rows: list[Row], rule: AlertRule, first: datetime) -> Iterator[Moment]:
    """When a rule became true of a product: time, since, before and after."""
    for index, row in enumerate(rows):
        at, price = row["valid_from"], known(row["current_price"])
        before = rows[index - 1] if index else None
        goes_on = before is not None and before["valid_to"] == at
        old = before["price"] if before and before["price_unit"] == row["unit"] else None
        match rule:
            case PriceDropped() | PriceRose() if old is not None and price is not None:
                found = reference(rule, rows, index, at)
                if (
                    found
                    and is_beyond(rule, price, found[0])
                    and not is_beyond(rule, old, found[0])
                ):
                    yield at, found[1], found[0], price
            case PriceBelow() if price is not None and price <= rule.price:
                is_unit = (rule.currency or row["unit"] or "").lower() == (
                    row["unit"] or ""
                ).lower()
                if is_unit and not (old is not None and old <= rule.price):
                    since = begun(rows, index - 1, "price", "price_unit") if before else None
                    yield at, since, rule.price, price
            case BackInStock() | OutOfStock() if before:
                stocks = (before["stock"], row["stock"])
                if stocks == ((False, True) if isinstance(rule, BackInStock) else (True, False)):
                    yield at, begun(rows, index - 1, "stock"), old, price
            case Appeared() if not goes_on and at > first:
                yield at, before["valid_to"] if before else None, old, price
        following = rows[index + 1] if index + 1 < len(rows) else None
        is_gone = row["valid_to"] and (not following or following["valid_from"] != row["valid_to"])
        if isinstance(rule, Disappeared) and is_gone:
            start = index
            while start and rows[start - 1]["valid_to"] == rows[start]["valid_from"]:
                start -= 1
            last = row["price"] if row["price_unit"] == row["unit"] else None
            yield row["valid_to"], rows[start]["valid_from"], last, None


def unrepeated(found: Iterable[tuple[Any, ...]], rule: AlertRule) -> list[tuple[Any, ...]]:
    """Events that begin with time, currency and price, without repetitions in the cool-down."""
    kept: list[tuple[Any, ...]] = []
    for event in sorted(found, key=lambda each: each[0]):
        if kept and rule.again_after is not None and event[0] - kept[-1][0] < rule.again_after:
            (_, unit, price, *_), (_, old_unit, old, *_) = event, kept[-1]
            if None in (unit, price, old) or unit != old_unit:
                continue
            lower = isinstance(rule, PriceDropped | PriceBelow | PriceListRule) and price < old
            if not lower and not (isinstance(rule, PriceRose) and price > old):
                continue
        kept.append(event)
    return kept


def changes_of_currency(rows: list[Row]) -> Iterator[Moment]:
    """When a product, whose rows are `remembered`, got another currency."""
    for index in range(1, len(rows)):
        units = {rows[index - 1]["unit"], rows[index]["unit"]} - {None}
        if len(units) == 2:
            price = known(rows[index]["current_price"])
            yield rows[index]["valid_from"], begun(rows, index - 1, "unit"), None, price


def at(rows: Sequence[Row], moment: datetime) -> list[Row]:
    """The rows of a history as they were at a moment, with those that had ended."""
    return [
        row if row["valid_to"] and row["valid_to"] <= moment else {**row, "valid_to": None}
        for row in rows
        if row["valid_from"] <= moment
    ]


def _below(
    products: Sequence[Row], own: Sequence[Row], rule: PriceListRule
) -> list[tuple[Any, bool | None, Row]]:
    """Whether each own row has a page below it; None if that is unknown."""
    column = rule.column if isinstance(rule, BelowFloor) else "price"
    percent = rule.percent if isinstance(rule, Undercut) else 0
    compared = position(products, [{**row, "price": row[column]} for row in own])
    # Whoever is not there is not below, whatever the own price.
    as_if = [position(products, [{**row, "price": 1.0}])[0]["status"] for row in own]
    found = []
    for row, real, of_limit, there in zip(
        own, position(products, own), compared, as_if, strict=True
    ):
        state = False if there in {"out_of_stock", "gone", "not_found"} else None
        if of_limit["status"] == "matched":
            theirs, limit = of_limit["competitor_price"], row[column]
            state = theirs < limit and theirs <= limit * (1 - percent / 100)
        usable = known(row["price"]) if row["currency"] else None
        shown = {**row, **of_limit, "price": usable, "rank": real["rank"]}
        found.append(((row["sku"], page(row["product_url"])), state, shown))
    return found


def own_events(
    products: Sequence[Row], own: Sequence[Row], rules: Sequence[PriceListRule]
) -> set[tuple[Any, ...]]:
    """When pages went below own rows: rule, SKU, time, page's product and price, own price, ranks.

    Both are rows of histories.
    """
    found_events: dict[Any, list[tuple[Any, ...]]] = {}
    times = {row[name] for row in (*products, *own) for name in ("valid_from", "valid_to")} - {None}
    for rule in rules:
        before: dict[Any, bool] = {}
        ranks: dict[Any, Any] = {}
        for time in sorted(times):
            now: dict[Any, bool] = {}
            there = [row for row in at(own, time) if row["valid_to"] is None]
            found = _below(at(products, time), there, rule)
            for key in {key for key, *_ in found}:
                said = [state for other, state, _ in found if other == key]
                unknown = before.get(key, False) if None in said else False
                now[key] = any(said) or unknown
            for group in {key if rule.by == "any" else key[:1] for key in now}:
                was, is_so = (
                    any(state for key, state in of.items() if key[: len(group)] == group)
                    for of in (before, now)
                )
                if is_so and not was:
                    below = [
                        (row["competitor_price"], key[1] or "", row["competitor_uuid"], row)
                        for key, state, row in found
                        if state and key[: len(group)] == group
                    ]
                    price, _, uuid, row = min(below, key=lambda each: each[:3])
                    rank = ranks.get((row["sku"], row["product_url"]))
                    values = (uuid, price, row["price"], rank, row["rank"])
                    event = (time, unit_of(row), price, (rule.name, row["sku"], time, *values))
                    found_events.setdefault((rule, *group), []).append(event)
            before = now
            ranks = {(row["sku"], row["product_url"]): row["rank"] for *_, row in found}
    return {
        event
        for (rule, *_), of_group in found_events.items()
        for *_, event in unrepeated(of_group, rule)
    }
