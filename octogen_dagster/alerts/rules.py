"""The rules of alerts: what must become true of a product's price, stock or place in a catalog."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, get_args

import polars as pl

from octogen_dagster.frames.kinds import Check, Verdict
from octogen_dagster.printable import count
from octogen_dagster.validation import warn_of_share

Against = Literal["before", "lowest", "median"]
_AGAINST = get_args(Against)
_NAME = re.compile(r"[A-Za-z0-9_]+")
CURRENCY_CHANGED = "currency_changed"
"""The name of the rule that each rule of prices brings with it."""
_TAKEN = (
    CURRENCY_CHANGED,
    "current_products",
    "current_rows",
    "events_appeared",
    "events_vanished",
    "fresh",
)
"""The names that alerts have for a rule, a number or a check of their own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AlertRule:
    """A rule of `build_price_alerts_asset`; use one of its kinds.

    Attributes:
        where: The products that it is about, as an expression over the columns of the history and
            of the current snapshot, such as `pl.col("brand").struct.field("name") == "Acme"`; None
            for all. Of the columns that only a snapshot has, a product that is gone has the brand
            and the category, which its history keeps. Give `is_in` a list: the order of a set
            differs in each process, and makes another rule of it.
        name: What it is called in the table and in its check; by default its kind.
        days: How many days it looks back: for a reference to compare with, and, when it is new, for
            what has happened.
        max_products: The number of products that it may find in a snapshot before its check warns.
        max_percent: The same in percent of the products that are there; the check warns only above
            both. None for no such limit.
    """

    kind: ClassVar[str]
    happened: ClassVar[str]
    of_prices: ClassVar[bool] = False
    row: ClassVar[str] = "product"
    """What the rule looks at."""
    counted: ClassVar[str] = "current_products"
    """The figure that has the number of them."""

    where: pl.Expr | None = None
    name: str = ""
    days: int = 30
    max_products: int = 0
    max_percent: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.kind)
        of = f"The rule {self.name!r}"
        if not _NAME.fullmatch(self.name) or self.name in _TAKEN:
            raise ValueError(
                f"{of}: a name has letters, digits and underscores, and is none of "
                f"{', '.join(_TAKEN)}, which alerts have already."
            )
        if self.where is not None and not isinstance(self.where, pl.Expr):
            raise TypeError(f"{of}: where is a polars expression, not {type(self.where).__name__}.")
        for name in ("days", "max_products", "max_percent", "percent", "amount"):
            value = getattr(self, name, None)
            if isinstance(value, str):
                raise TypeError(f"{of}: {name} must be a number, such as 10, not {value!r}.")
        if self.days < 1:
            raise ValueError(f"{of}: days must be at least 1, not {self.days}.")
        if self.max_products < 0 or (self.max_percent or 0) < 0:
            raise ValueError(f"{of}: max_products and max_percent must not be negative.")
        for name in ("percent", "max_percent"):
            if 0 < (getattr(self, name, None) or 0) < 1:
                warn_of_share(f"{of}: {name}", getattr(self, name))

    @property
    def words(self) -> str:
        """The event of a product that the rule found, such as `sold out`."""
        return self.happened if self.name == self.kind else self.name.replace("_", " ")

    @property
    def definition(self) -> dict[str, Any]:
        """The definition of the rule, which a table keeps with the events that it found.

        Polars promises neither the text of an expression nor its bytes, so the digest of `where`
        has the version of Polars that made it.
        """
        said = {each.name: getattr(self, each.name) for each in fields(self)}
        for name in ("name", "max_products", "max_percent"):
            del said[name]
        if (where := self.where) is not None:
            said["where"] = sorted({*where.meta.root_names()})
            digest = hashlib.blake2b(where.meta.serialize(), digest_size=16)
            said[f"polars {pl.__version__}"] = digest.hexdigest()
        return {"kind": self.kind, **said}

    def is_defined_by(self, definition: Mapping[str, Any]) -> bool:
        """True unless the rule is known to differ from a definition."""
        own = self.definition
        return all(own[name] == definition[name] for name in own.keys() & definition.keys())


@dataclass(frozen=True, kw_only=True, eq=False)
class _PriceRule(AlertRule):
    of_prices = True

    percent: float | None = None
    amount: float | None = None
    against: Against = "before"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("percent", "amount"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"The rule {self.name!r}: {name} must be above 0, not {value}.")
        if self.against not in _AGAINST:
            raise ValueError(
                f"The rule {self.name!r}: against must be one of {', '.join(_AGAINST)}, not "
                f"{self.against!r}."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class PriceDropped(_PriceRule):
    """The price fell, by at least `percent` and at least `amount` where they are given.

    A price is compared with one of the same currency only. A product whose currency changes is an
    event `currency_changed`.

    Attributes:
        percent: How many percent of the price before.
        amount: How much, in the currency of the price.
        against: What it is compared with: the price just `before`, or the `lowest` or the `median`
            price of the last `days`. The median counts a price for as long as it lasted.
    """

    kind = "price_dropped"
    happened = "dropped"


@dataclass(frozen=True, kw_only=True, eq=False)
class PriceRose(_PriceRule):
    """The price rose, by at least `percent` and at least `amount` where they are given.

    The attributes are those of `PriceDropped`.
    """

    kind = "price_rose"
    happened = "rose"


@dataclass(frozen=True, kw_only=True, eq=False)
class BackInStock(AlertRule):
    """The product was out of stock, and is in stock again."""

    kind = "back_in_stock"
    happened = "back in stock"


@dataclass(frozen=True, kw_only=True, eq=False)
class OutOfStock(AlertRule):
    """The product was in stock, and is not any more."""

    kind = "out_of_stock"
    happened = "sold out"


@dataclass(frozen=True, kw_only=True, eq=False)
class Appeared(AlertRule):
    """The product is new in its catalog, or back in it; not those of a catalog's first snapshot."""

    kind = "appeared"
    happened = "new"


@dataclass(frozen=True, kw_only=True, eq=False)
class Disappeared(AlertRule):
    """The product is no longer in its catalog, or no longer matches the filters of the search."""

    kind = "disappeared"
    happened = "gone"


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnPriceRule(AlertRule):
    """A rule of own prices: use one of its kinds, with `own` of `build_price_alerts_asset`."""

    by: ClassVar[str] = "any"
    row = "price-list row"
    counted = "current_rows"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.where is not None:
            raise ValueError(
                f"The rule {self.name!r}: where is of products, and this rule is about each "
                "article of the own table. Leave it out."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Undercut(OwnPriceRule):
    """A competitor in stock costs less than the own price, by at least `percent` of it.

    It becomes true when the first competitor does, and can become true again once none does. The
    pages are those of the own table, and what cannot be compared is not below: an own price that is
    missing, a price that is none or one in another currency change nothing.

    Attributes:
        percent: How many percent below the own price; with 0 any amount.
        by: `cheapest` for one event of an article, when it has a cheaper competitor; `any` for one
            of each competitor's page.
    """

    kind = "undercut"
    happened = "below the own price"

    percent: float = 0.0
    by: Literal["cheapest", "any"] = "cheapest"  # type: ignore[misc]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.percent < 100:
            raise ValueError(
                f"The rule {self.name!r}: percent must be from 0 to below 100, not {self.percent}."
            )
        if self.by not in {"cheapest", "any"}:
            raise ValueError(
                f"The rule {self.name!r}: by must be cheapest or any, not {self.by!r}."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class BelowFloor(OwnPriceRule):
    """A competitor in stock costs less than a floor, such as the minimum advertised price.

    It becomes true for each competitor's page, as `Undercut` does.

    Attributes:
        column: The column of the own table that has the floor, in the currency of the own price.
    """

    kind = "below_floor"
    happened = "below the floor"

    column: str = "map_price"


@dataclass(frozen=True, kw_only=True, eq=False)
class CurrencyChanged(AlertRule):
    """The currency of a product that a rule of prices is about became another one."""

    kind = CURRENCY_CHANGED
    happened = "in another currency"

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.kind)


KINDS: Mapping[str, type[AlertRule]] = {
    rule.kind: rule
    for rule in (PriceDropped, PriceRose, BackInStock, OutOfStock, Appeared, Disappeared)
}


OWN_KINDS: Mapping[str, type[OwnPriceRule]] = {rule.kind: rule for rule in (Undercut, BelowFloor)}


def check_of(rule: AlertRule) -> Check:
    """The check that warns if many products met a rule in the last snapshot."""

    def judge(_subject: str, entries: Mapping[str, Any]) -> Verdict:
        found = entries.get(f"octogen/{rule.name}", 0)
        rows = entries.get(f"octogen/{rule.counted}", 0)
        share = rule.max_percent
        is_share = share is None or found > rows * share / 100
        text = f"{found:,} of {count(rows, rule.row)} met it in the last snapshot."
        return Verdict(not (found > rule.max_products and is_share), text, {"events": found})

    description = f"Few {rule.row}s met the rule {rule.name} in the last snapshot."
    return Check(description, judge=judge, warns=True)


def check_names(rules: Sequence[AlertRule]) -> None:
    """Refuse two rules of one name."""
    names = [rule.name for rule in rules]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"Two rules are called {twice[0]!r}. Give one of them a name of its own, as `name`."
        )


def with_currency_changes(rules: Sequence[AlertRule]) -> list[AlertRule]:
    """Add the rule of currencies to those of prices, for the products that any of them is about."""
    of_prices = [rule for rule in rules if rule.of_prices]
    if not of_prices:
        return list(rules)
    parts = [rule.where for rule in of_prices if rule.where is not None]
    where = pl.any_horizontal(parts) if len(parts) == len(of_prices) else None
    return [*rules, CurrencyChanged(where=where, days=max(rule.days for rule in of_prices))]
