"""What a report must say of snapshots: a model in plain Python, which knows no history."""

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

from tests.histories import Product, day, product

Snapshots = Mapping[datetime, list[Product]]
DAY = timedelta(days=1)
SEPARATOR = " \u203a "
UNKNOWN = "\u2013"
BINS = 24
KINDS = (
    "price dropped",
    "price rose",
    "back in stock",
    "out of stock",
    "appeared",
    "disappeared",
    "currency changed",
    "reappeared",
)
OWN_KINDS = ("undercut", "below floor")
OwnPrices = Mapping[datetime, tuple[float, float]]
"""The own price of an article and its floor, from times on. Its page is that of a product."""


def price_of(product: Product) -> float | None:
    price = product["current_price"]
    return price if price is not None and math.isfinite(price) and price > 0 else None


def currency_of(product: Product) -> str | None:
    currency: str | None = product["currency"]
    return currency and currency.upper()


def stock_of(product: Product) -> bool | None:
    if product["is_active"] is False:
        return False
    in_stock: bool | None = product["in_stock"]
    return in_stock


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
        states = [each for each in self.states.values() if each and currency_of(each) == currency]
        return [price for each in states if (price := price_of(each))]

    def events(self) -> Iterator[Event]:
        price: float | None = None
        price_unit: str | None = None
        unit: str | None = None
        stock: bool | None = None
        was, is_known = True, False
        for at, state in self.states.items():
            is_first, is_new = at == min(self.states), not is_known
            if state is None:
                if was and is_known:
                    before = price if price_unit == unit else None
                    yield Event(at, "disappeared", self.catalog, self.shown, before, None, unit)
                was = False
                continue
            old_unit, unit = unit, currency_of(state) or unit
            before, now = price if price_unit == unit else None, price_of(state)
            kinds = []
            if not is_first and (is_new or not was):
                kinds.append("appeared" if is_new else "reappeared")
            if not is_new:
                if now and before and now != before:
                    kinds.append("price dropped" if now < before else "price rose")
                if None not in (unit, old_unit) and unit != old_unit:
                    kinds.append("currency changed")
                if None not in (stock, stock_of(state)) and stock != stock_of(state):
                    kinds.append("back in stock" if stock_of(state) else "out of stock")
            for kind in kinds:
                told = None if kind == "currency changed" else before
                yield Event(at, kind, self.catalog, self.shown, told, now, unit)
            if now:
                price, price_unit = now, unit
            known = stock_of(state)
            stock, was, is_known = stock if known is None else known, True, True

    def own_events(self, own: OwnPrices) -> Iterator[Event]:
        """When it went below the own price of its article, and below the floor; both in euros."""
        was, rank = dict.fromkeys(OWN_KINDS, False), UNKNOWN
        for at in sorted({*self.states, *own}):
            state = self.before(at + timedelta(microseconds=1))
            prices = [prices for begin, prices in own.items() if begin <= at]
            price, currency = (price_of(state), currency_of(state)) if state else (None, None)
            is_out = state is not None and stock_of(state) is False
            is_comparable = price is None or currency == "EUR"
            is_matched = bool(price) and is_comparable and not is_out
            before, rank = rank, UNKNOWN
            if not prices:
                continue
            if is_matched and price:
                rank = "2" if price < prices[-1][0] else "1"
            for kind, limit in zip(OWN_KINDS, prices[-1], strict=True):
                is_below = is_matched and price is not None and price < limit
                if state is not None and not is_matched and not (is_out and is_comparable):
                    is_below = was[kind]
                if is_below and not was[kind]:
                    sku = self.last["uuid"]
                    text = f": {sku} at {money(prices[-1][0], 'EUR')}, rank {before} \u2192 {rank}"
                    yield Event(at, kind, self.catalog, self.shown, limit, price, currency, text)
                was[kind] = is_below


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
        return price_of(state) if state and currency_of(state) == self.currency else None

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
            than.append(f"{named}cheaper: {share(cheaper)}; dearer: {share(dearer)}")
            known = [stock_of(state) for _, state in states if state]
            stock.append(f"{named}in stock: {share([each for each in known if each is not None])}")
        events = [
            event
            for past in self.pasts
            for event in (*past.events(), *past.own_events(self.own.get(past.last["uuid"], {})))
            if event.currency == self.currency or not (event.own or event.kind[:5] == "price")
        ]
        kinds = [*KINDS, *(OWN_KINDS if self.own else ())]
        by_kind = {
            kind: Counter(each.cells for each in events if each.kind == kind) for kind in kinds
        }
        counts = [f"{found.total()} {kind}" for kind, found in by_kind.items() if found]
        return {
            "title": f"Events of the last {len(self.dates)} days: {', '.join(counts) or 'none'}",
            "index": index,
            "share": than,
            "stock": stock,
            "brands": self._brands(),
            "distribution": self._distribution(),
            "tiles": self._tiles(),
            "products": Counter(map(self._cells, self.pasts)),
            "events": by_kind,
        }

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
            "cheaper than at first": str(sum(change < 0 for change in changes)),
            "dearer than at first": str(sum(change > 0 for change in changes)),
            "in stock": share([each for each in known if each is not None], digits=0),
        }

    def _cells(self, past: Past) -> tuple[str, ...]:
        now, is_described = past.now, past.now is not None
        stock = {True: "in stock", False: "out of stock", None: ""}[stock_of(now) if now else None]
        return (
            past.shown["title"] or past.last["product_url"],
            past.catalog,
            brand_of(past.last) if is_described else "",
            category_of(past.last) if is_described else "",
            money(price_of(now) if now else None, currency_of(now) if now else None),
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
            price = price_of(first) or 100.0
            prices = [round(price * drawn.uniform(0.8, 1.3), 2) for _ in range(2)]
            days = zip((day(1), day(3, 20)), prices, strict=True)
            found[uuid] = {at: (each, round(0.8 * each, 2)) for at, each in days}
    return found
