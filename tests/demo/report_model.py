"""What a report must say of snapshots, in plain Python."""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, NamedTuple

from octogen_dagster.alerts import (
    Appeared,
    BackInStock,
    BelowFloor,
    Disappeared,
    OutOfStock,
    PriceDropped,
    PriceRose,
    Undercut,
)
from octogen_dagster.alerts.rules import AlertRule
from tests.histories import Product, day, product
from tests.prices_model import (
    changes_of_currency,
    known,
    moments,
    own_events,
    remembered,
    stock_of,
    unit_of,
)
from tests.properties.snapshots import Snapshot, rows_of

Snapshots = Mapping[datetime, list[Product]]
DAY = timedelta(days=1)
SEPARATOR = " \u203a "
UNKNOWN = "\u2013"
BINS = 24
RULES: dict[str, AlertRule] = {
    "price dropped": PriceDropped(),
    "price rose": PriceRose(),
    "back in stock": BackInStock(),
    "out of stock": OutOfStock(),
    "appeared": Appeared(),
    "disappeared": Disappeared(),
}
KINDS = (*RULES, "currency changed", "reappeared")
OWN_RULES = (Undercut(), BelowFloor())
OWN_KINDS = ("undercut", "below floor")
OwnPrices = Mapping[datetime, tuple[float, float]]
"""The own price of an article and its floor, from times on. Its page is that of a product."""


def priced(product: Product) -> float | None:
    return known(product["current_price"])


def brand_of(product: Product) -> str:
    brand = product.get("brand") or ""
    return brand["name"] if isinstance(brand, dict) else brand


def category_of(product: Product) -> str:
    return SEPARATOR.join(product.get("category_path") or [])


def fixed(number: float, digits: int) -> str:
    """A number as browsers round it: a half away from zero."""
    step = Decimal(1).scaleb(-digits)
    return str(Decimal(number).quantize(step, ROUND_HALF_UP))


def money(price: float | None, currency: str | None) -> str:
    return UNKNOWN if price is None else f"{price:,.2f} {currency or ''}".strip()


def percent(change: float | None) -> str:
    return UNKNOWN if change is None else f"{'+' if change > 0 else ''}{fixed(100 * change, 1)} %"


def share(of: list[bool], *, digits: int = 1) -> str:
    return f"{fixed(100 * sum(of) / len(of), digits)} %" if of else UNKNOWN


class Event(NamedTuple):
    at: datetime
    kind: str
    catalog: str
    product: Product
    before: float | None
    after: float | None
    currency: str | None
    own: str = ""

    @property
    def change(self) -> float | None:
        return self.after / self.before - 1 if self.after and self.before else None

    @property
    def cells(self) -> tuple[str, ...]:
        return (
            f"{self.at:%Y-%m-%d}",
            self.kind + self.own,
            self.product["title"] or self.product["product_url"],
            self.catalog,
            money(self.before, self.currency),
            money(self.after, self.currency),
            percent(self.change),
        )


@dataclass
class Past:
    """A product in the snapshots of its catalog, at each of their times; None where it was not."""

    catalog: str
    states: dict[datetime, Product | None]

    @property
    def last(self) -> Product:
        return [each for each in self.states.values() if each][-1]

    @property
    def shown(self) -> Product:
        """The last state, with the last title that was known."""
        titles = [each["title"] for each in self.states.values() if each and each["title"]]
        return {**self.last, "title": titles[-1] if titles else None}

    @property
    def now(self) -> Product | None:
        return list(self.states.values())[-1]

    def before(self, end: datetime) -> Product | None:
        found = [state for at, state in self.states.items() if at < end]
        return found[-1] if found else None

    def prices(self, currency: str) -> list[float]:
        states = [each for each in self.states.values() if each and unit_of(each) == currency]
        return [price for each in states if (price := priced(each))]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of its history; another product is there whenever it is not."""
        key, ignored = (self.catalog, self.last["uuid"]), {"original_price": None, "brand": None}
        snapshots = {
            at: Snapshot({key if state else (key[0], ""): {**(state or self.last), **ignored}})
            for at, state in self.states.items()
        }
        rows = [each for each in rows_of(snapshots) if each["uuid"] == key[1]]
        return remembered(sorted(rows, key=lambda row: row["valid_from"]))

    def events(self) -> Iterator[Event]:
        rows = self.rows
        units = {row["valid_to"]: row["unit"] for row in rows}
        units |= {row["valid_from"]: row["unit"] for row in rows}
        found = [(kind, moments(rows, rule, min(self.states))) for kind, rule in RULES.items()]
        for kind, each in (*found, ("currency changed", changes_of_currency(rows))):
            for at, since, before, after in each:
                named = "reappeared" if kind == "appeared" and since else kind
                yield Event(at, named, self.catalog, self.shown, before, after, units[at])


@dataclass
class Model:
    """The report of catalogs, in a currency, with some of their products and some own prices."""

    catalogs: Mapping[str, Snapshots]
    currency: str = "EUR"
    is_chosen: Callable[[Past], bool] = lambda _: True
    own: Mapping[str, OwnPrices] = field(default_factory=dict)
    pasts: list[Past] = field(init=False)

    def __post_init__(self) -> None:
        self.pasts = []
        for catalog, snapshots in self.catalogs.items():
            for uuid in sorted({each["uuid"] for rows in snapshots.values() for each in rows}):
                states = {
                    at: next((each for each in rows if each["uuid"] == uuid), None)
                    for at, rows in snapshots.items()
                }
                if self.is_chosen(past := Past(catalog, states)):
                    self.pasts.append(past)

    @property
    def dates(self) -> list[datetime]:
        times = [at for snapshots in self.catalogs.values() for at in snapshots]
        first, last = (at.replace(hour=0, minute=0) for at in (min(times), max(times)))
        return [first + number * DAY for number in range((last - first).days + 1)]

    def _priced(self, state: Product | None) -> float | None:
        return priced(state) if state and unit_of(state) == self.currency else None

    def shown(self) -> dict[str, Any]:
        """All that the page shows, each number as it is written there."""
        index, than, stock = [], [], []
        for date in self.dates:
            states = [(past, past.before(date + DAY)) for past in self.pasts]
            ratios = [
                price / past.prices(self.currency)[0]
                for past, state in states
                if (price := self._priced(state))
            ]
            mean = math.exp(statistics.fmean(map(math.log, ratios))) * 100 if ratios else None
            named = f"day: {date:%Y-%m-%d}; "
            index.append(f"{named}price index: {UNKNOWN if mean is None else fixed(mean, 1)}")
            cheaper, dearer = ([sign * each > sign for each in ratios] for sign in (-1, 1))
            than.append(f"{named}cheaper: {share(cheaper)}; more expensive: {share(dearer)}")
            known = [stock_of(state) for _, state in states if state]
            stock.append(f"{named}in stock: {share([each for each in known if each is not None])}")
        events = [
            event
            for event in (*(each for past in self.pasts for each in past.events()), *self._own())
            if event.currency == self.currency or not (event.own or event.kind[:5] == "price")
        ]
        kinds = [*KINDS, *(OWN_KINDS if self.own else ())]
        by_kind = {
            kind: Counter(each.cells for each in events if each.kind == kind) for kind in kinds
        }
        counts = [f"{found.total()} {kind}" for kind, found in by_kind.items() if found]
        return {
            "title": f"Events in the last {len(self.dates)} days: {', '.join(counts) or 'none'}",
            "index": index,
            "share": than,
            "stock": stock,
            "brands": self._brands(),
            "distribution": self._distribution(),
            "tiles": self._tiles(),
            "products": Counter(map(self._cells, self.pasts)),
            "events": by_kind,
        }

    def _own(self) -> Iterator[Event]:
        """When products went below the own prices of their articles, and below the floors."""
        pasts = {past.last["uuid"]: past for past in self.pasts}
        own: list[dict[str, Any]] = [
            {"sku": sku, "product_url": f"https://www.acme.example/{sku}", "currency": "EUR"}
            | {"price": price, "map_price": floor, "valid_from": at, "valid_to": end}
            for sku, prices in self.own.items()
            for (at, (price, floor)), end in zip(
                prices.items(), [*[*prices][1:], None], strict=True
            )
        ]
        rows = [row for past in self.pasts for row in past.rows]
        for rule, sku, at, _, after, price, *ranks in own_events(rows, own, OWN_RULES):
            floor = next(
                row["map_price"] for row in own if (row["sku"], row["price"]) == (sku, price)
            )
            before, rank = (UNKNOWN if each is None else each for each in ranks)
            text = f": {sku} at {money(price, 'EUR')}, rank {before} \u2192 {rank}"
            past, limit = pasts[sku], price if rule == "undercut" else floor
            yield Event(
                at, rule.replace("_", " "), past.catalog, past.shown, limit, after, "EUR", text
            )

    def _brands(self) -> Counter[str]:
        stocks: dict[str, list[bool]] = {}
        for past in self.pasts:
            known = stock_of(past.now) if past.now else None
            if known is not None and brand_of(past.last):
                stocks.setdefault(brand_of(past.last), []).append(known)
        return Counter(
            f"brand: {brand}; in stock: {share(known)}; products: {len(known)}"
            for brand, known in stocks.items()
        )

    def _now(self) -> list[float]:
        return sorted(price for past in self.pasts if (price := self._priced(past.now)))

    def _distribution(self) -> list[str]:
        prices = self._now()
        cut = prices[math.floor(0.98 * (len(prices) - 1))] if prices else 0.0
        edges = [cut * number / BINS for number in range(BINS + 1)]
        bins = Counter(min(BINS - 1, int(BINS * each / cut)) for each in prices if each <= cut)
        return [
            f"prices: {fixed(edges[number], 2)} to {fixed(edges[number + 1], 2)}; "
            f"products: {bins[number]}"
            for number in range(BINS)
        ]

    def _change(self, past: Past) -> float | None:
        now = self._priced(past.now)
        return now / past.prices(self.currency)[0] - 1 if now else None

    def _tiles(self) -> dict[str, str]:
        there = [past for past in self.pasts if past.now]
        changes = [change for past in there if (change := self._change(past)) is not None]
        known = [stock_of(past.now) for past in there if past.now]
        now = self._now()
        median = f"{fixed(statistics.median(now), 2)} {self.currency}" if now else UNKNOWN
        return {
            "products": str(len(there)),
            "median price": median,
            "below first price": str(sum(change < 0 for change in changes)),
            "above first price": str(sum(change > 0 for change in changes)),
            "in stock": share([each for each in known if each is not None], digits=0),
        }

    def _cells(self, past: Past) -> tuple[str, ...]:
        now = past.now
        stock = {True: "in stock", False: "out of stock", None: ""}[stock_of(now) if now else None]
        return (
            past.shown["title"] or past.last["product_url"],
            past.catalog,
            brand_of(past.last),
            category_of(past.last),
            money(priced(now) if now else None, unit_of(now) if now else None),
            percent(self._change(past)),
            stock if now else "gone",
        )


# What the model is tried with.

_PATHS: tuple[list[str] | None, ...] = (
    ["Shoe"],
    ["Shoe", "Boots"],
    ["Shoe", "Boots", "Chelsea"],
    ["Shoe Care"],
    [],
    None,
)


def _walk(names: str, count: int, seed: int, times: list[datetime], **values: Any) -> Snapshots:
    """Products that come and go, and of which much is unknown or changes, from time to time."""
    drawn = random.Random(seed)
    found: dict[datetime, list[Product]] = {at: [] for at in times}
    for number in range(count):
        price, uuid = round(drawn.uniform(5, 200), 2), f"{names}-{number:02}"
        title = None if number % 7 == 3 else f"{names.title()} {number}"
        path = _PATHS[number % len(_PATHS)]
        for at in times:
            if drawn.random() < 0.12:
                continue
            price = round(price * drawn.choice((1, 1, 0.7, 0.9, 1.2)), 2)
            shown = drawn.choices((price, None, 0.0, 987.0), (16, 2, 1, 1))[0]
            found[at].append(
                product(
                    uuid,
                    shown,
                    title=title,
                    category_path=path,
                    currency=drawn.choices(("EUR", "eur", None, "USD"), (16, 2, 1, 2))[0],
                    in_stock=drawn.choices((True, False, None), (6, 3, 1))[0],
                    is_active=drawn.choices((True, None, False), (8, 1, 1))[0],
                    brand=None if number % 5 == 4 else values["brands"][number % 5],
                )
            )
    return found


def first_month() -> dict[str, Snapshots]:
    """Catalogs that are read at different times of five days; one is read first on the third."""
    names = ("Acme", "Birch", "Cobalt", "Delta")
    return {
        "acme": _walk(
            "boot",
            40,
            1,
            [*(day(number) for number in (1, 2, 3, 4)), day(4, 15), day(5)],
            brands=[{"name": name} for name in names],
        ),
        "lodge": _walk("tent", 40, 2, [day(number, 19) for number in range(1, 6)], brands=names),
        "outlet-2026-11-01": _walk(
            "lamp", 25, 3, [day(number, 12) for number in (3, 4, 5)], brands=names
        ),
    }


def own_month() -> dict[str, OwnPrices]:
    """The own prices of articles that are called as the products on their pages are."""
    drawn, found = random.Random(4), dict[str, OwnPrices]()
    for snapshots in first_month().values():
        for uuid in sorted({each["uuid"] for rows in snapshots.values() for each in rows})[::2]:
            first = next(
                each for rows in snapshots.values() for each in rows if each["uuid"] == uuid
            )
            price = priced(first) or 100.0
            prices = [round(price * drawn.uniform(0.8, 1.3), 2) for _ in range(2)]
            days = zip((day(1), day(3, 20)), prices, strict=True)
            found[uuid] = {at: (each, round(0.8 * each, 2)) for at, each in days}
    return found
