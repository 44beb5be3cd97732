"""Alert rules: each is one class with its arguments, its words and its condition.

The class is the only declaration: `kind`, the YAML fields and their JSON schema are derived from
it. Polars is imported where a rule uses it, since Dagster reads the schema to list components.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from octogen_dagster.validation import warn_of_share

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "AlertRule",
    "Appeared",
    "BackInStock",
    "BelowFloor",
    "Disappeared",
    "OutOfStock",
    "PriceBelow",
    "PriceDropped",
    "PriceListRule",
    "PriceRose",
    "Undercut",
]

Against = Literal["before", "lowest", "median"]
TOLERANCE = 1e-9
"""The share by which a price can miss a threshold, because floats are not exact."""
_NAME = re.compile(r"[A-Za-z0-9_]+")
_RESERVED = (
    "currency_changed",
    "current_products",
    "current_rows",
    "events_appeared",
    "events_vanished",
    "fresh",
)
"""Names that alerts use for a built-in rule, a figure or a check."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AlertRule:
    """Base class of alert rules, including rules that you write.

    A subclass is a frozen dataclass with the class attribute `happened` and the method `condition`.
    Its fields are its arguments in Python and in YAML. Its `kind` is the class name in snake case.

    Attributes:
        where: The products the rule applies to, as an expression over the columns of the history
            and of the current snapshot, such as `pl.col("brand").struct.field("name") == "Acme"`;
            None for all. A product that disappeared keeps its brand and category, and is null in
            the other columns that only a snapshot has. Pass a list to `is_in`: the order of a set
            differs in each process, which would make it another rule.
        name: The rule's name in the alerts table, and the name of its check; by default its kind.
        days: Days that a new rule looks back, and that a price is compared over.
        again_after: Cool-down: the time in which the rule reports a product only once, unless its
            price has moved further in the same currency: lower, or higher for `PriceRose`. None
            for no cool-down.
        max_products: Products that can match in one snapshot before the rule's check warns.
        max_percent: The same limit in percent of the current products. The check warns only above
            both limits. None for no such limit.
    """

    kind: ClassVar[str] = ""
    """The rule's name in YAML, derived from the class name."""
    happened: ClassVar[str]
    """What happened to a product, such as `sold out`, for the summary of a materialization."""
    of_prices: ClassVar[bool] = False
    """True if the rule compares prices, in which case a currency change is also reported."""
    at: ClassVar[str] = "valid_from"
    """The column with the time of an event."""
    direction: ClassVar[int] = 0
    """-1 if a lower price is reported during the cool-down, 1 if a higher one is, 0 if neither."""
    row: ClassVar[str] = "product"
    counted: ClassVar[str] = "current_products"

    where: pl.Expr | None = None
    name: str = ""
    days: int = 30
    again_after: timedelta | None = None
    max_products: int = 0
    max_percent: float | None = None

    def __init_subclass__(cls) -> None:
        cls.kind = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.kind)
        subject = f"Rule {self.name!r}"
        if not _NAME.fullmatch(self.name) or self.name in _RESERVED:
            raise ValueError(
                f"{subject}: a name has letters, digits and underscores. Reserved names are "
                f"{', '.join(_RESERVED)}."
            )
        if self.where is not None:
            import polars as pl

            if not isinstance(self.where, pl.Expr):
                kind = type(self.where).__name__
                raise TypeError(f"{subject}: where must be a polars expression, not {kind}.")
        for name in ("days", "max_products", "max_percent", "percent", "amount", "price"):
            value = getattr(self, name, None)
            if isinstance(value, str):
                raise TypeError(f"{subject}: {name} must be a number, such as 10, not {value!r}.")
        if self.days < 1:
            raise ValueError(f"{subject}: days must be at least 1, not {self.days}.")
        if self.again_after is not None:
            if not isinstance(self.again_after, timedelta):
                raise TypeError(
                    f"{subject}: again_after must be a timedelta, such as timedelta(days=7), not "
                    f"{self.again_after!r}."
                )
            if self.again_after <= timedelta(0):
                raise ValueError(f"{subject}: again_after must be above 0, not {self.again_after}.")
        if self.max_products < 0 or (self.max_percent or 0) < 0:
            raise ValueError(f"{subject}: max_products and max_percent must not be negative.")
        for name in ("percent", "max_percent"):
            if 0 < (getattr(self, name, None) or 0) < 1:
                warn_of_share(f"{subject}: {name}", getattr(self, name))

    def condition(self, rows: pl.DataFrame) -> pl.Series | pl.Expr:
        """Return where the rule became true, as a Boolean series or expression.

        Args:
            rows: The history of some products, with the columns of `HISTORY_SCHEMA`, sorted by
                `uuid`, `catalog_key` and `valid_from`. `after` is the price in a row, `in_stock`
                its stock, both null if unknown. Unknown values are carried forward in `price`,
                `currency` and `stock`. `price_before`, `currency_before` and `stock_before` are the
                values before the row, each with a `..._since`; `price_before` is null if it is in
                another currency. `is_new` is true if the product was not in the snapshot before,
                `is_last` if it is not in the snapshot after, `there_since` and `gone_since` are
                when it was last added and removed, and `first_seen` is when its catalog was first
                read.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a condition.")

    def events(self, found: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the events of the rows that met the condition.

        An event has the columns `since` and `before`: the previous value and since when it held.
        Override this to compare with something else, or to drop rows.

        Args:
            found: The rows that met the condition and are to be reported.
            rows: All rows, as in `condition`.
        """
        return found.with_columns(since="price_before_since", before="price_before")

    @property
    def words(self) -> str:
        """What happened to a product that the rule found, such as `sold out`."""
        return self.happened if self.name == self.kind else self.name.replace("_", " ")

    @property
    def definition(self) -> dict[str, Any]:
        """The definition of the rule, stored with the events it found.

        Polars guarantees neither the text of an expression nor its bytes, so the digest of `where`
        is stored under the version of Polars that made it.
        """
        stored = {each.name: getattr(self, each.name) for each in fields(self)}
        for name in ("name", "max_products", "max_percent"):
            del stored[name]
        stored["again_after"] = self.again_after and self.again_after.total_seconds()
        if (where := self.where) is not None:
            import polars as pl

            stored["where"] = sorted({*where.meta.root_names()})
            digest = hashlib.blake2b(where.meta.serialize(), digest_size=16)
            stored[f"polars {pl.__version__}"] = digest.hexdigest()
        return {"kind": self.kind, **stored}

    def is_defined_by(self, definition: Mapping[str, Any]) -> bool:
        """True unless the rule is known to differ from a stored definition."""
        own = self.definition
        return all(own[name] == definition[name] for name in own.keys() & definition.keys())


@dataclass(frozen=True, kw_only=True, eq=False)
class _PriceMove(AlertRule):
    of_prices = True

    percent: float | None = None
    amount: float | None = None
    against: Against = "before"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("percent", "amount"):
            require_positive(self, name, getattr(self, name))
        require_choice(self, "against", get_args(Against))

    def condition(self, rows: pl.DataFrame) -> pl.Series | pl.Expr:
        return self.direction * rows["after"] > self.direction * rows["price_before"]

    def events(self, found: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
        from octogen_dagster.alerts.references import with_references

        moved = with_references(found, rows, self.against, self.days)
        # It became true: it was not true of the price before, compared with the same reference.
        became = self._is_beyond(moved, "after") & ~self._is_beyond(moved, "price_before")
        return moved.filter(became)

    def _is_beyond(self, moved: pl.DataFrame, price: str) -> pl.Series:
        reference = moved["before"]
        by, slack = self.direction * (moved[price] - reference), reference.abs() * TOLERANCE
        beyond = by > slack
        if self.percent is not None:
            beyond &= by >= reference * self.percent / 100 - slack
        if self.amount is not None:
            beyond &= by >= self.amount - slack
        return beyond


@dataclass(frozen=True, kw_only=True, eq=False)
class PriceDropped(_PriceMove):
    """The price dropped, by at least `percent` and at least `amount` if they are set.

    Only prices in one currency are compared. A product whose currency changes triggers a
    `currency_changed` event.

    Attributes:
        percent: Smallest drop, in percent of the price it is compared with.
        amount: Smallest drop, in the currency of the price.
        against: The price to compare with: the price just `before`, or the `lowest` or the `median`
            price of the last `days`. The median weights a price by how long it lasted.
    """

    happened = "dropped"
    direction = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class PriceRose(_PriceMove):
    """The price rose, by at least `percent` and at least `amount` if they are set.

    Attributes:
        percent: Smallest rise, in percent of the price it is compared with.
        amount: Smallest rise, in the currency of the price.
        against: The price to compare with, as for `PriceDropped`.
    """

    happened = "rose"
    direction = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class PriceBelow(AlertRule):
    """The price is at or below `price`, also when the product is first seen.

    The rule resets when the price is above it again. A price in another currency is not compared.

    Attributes:
        price: The threshold, which is the `before` of an event.
        currency: ISO 4217 code of the threshold; by default the currency of each product.
    """

    happened = "below the price"
    of_prices = True
    direction = -1

    price: float
    currency: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "price", self.price)

    def condition(self, rows: pl.DataFrame) -> pl.Series | pl.Expr:
        was_below = (rows["price_before"] <= self.price).fill_null(value=False)
        became = (rows["after"] <= self.price) & ~was_below
        if self.currency is not None:
            became &= rows["currency"].str.to_lowercase() == self.currency.lower()
        return became

    def events(self, found: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
        return found.with_columns(since="price_before_since", before=self.price)


@dataclass(frozen=True, kw_only=True, eq=False)
class _StockChange(AlertRule):
    def events(self, found: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
        return found.with_columns(since="stock_before_since", before="price_before")


@dataclass(frozen=True, kw_only=True, eq=False)
class BackInStock(_StockChange):
    """The product was out of stock and is in stock again."""

    happened = "back in stock"

    def condition(self, rows: pl.DataFrame) -> pl.Series | pl.Expr:
        return rows["stock"] & ~rows["stock_before"]


@dataclass(frozen=True, kw_only=True, eq=False)
class OutOfStock(_StockChange):
    """The product was in stock and is out of stock."""

    happened = "sold out"

    def condition(self, rows: pl.DataFrame) -> pl.Series | pl.Expr:
        return ~rows["stock"] & rows["stock_before"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Appeared(AlertRule):
    """The product is new in its catalog or back in it, except in a catalog's first snapshot."""

    happened = "new"

    def condition(self, rows: pl.DataFrame) -> pl.Series | pl.Expr:
        return rows["is_new"] & (rows["valid_from"] > rows["first_seen"])

    def events(self, found: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
        return found.with_columns(since="gone_since", before="price_before")


@dataclass(frozen=True, kw_only=True, eq=False)
class Disappeared(AlertRule):
    """The product is no longer in its catalog, or no longer matches the filters of the search."""

    happened = "gone"
    at = "valid_to"

    def condition(self, rows: pl.DataFrame) -> pl.Series | pl.Expr:
        return rows["is_last"]

    def events(self, found: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
        found = found.with_columns(since="there_since", before="price")
        return found.with_columns(after=None, in_stock=None)


@dataclass(frozen=True, kw_only=True, eq=False)
class CurrencyChanged(AlertRule):
    """The currency of a product changed. Alerts add this rule to price rules."""

    happened = "in another currency"

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.kind)

    def condition(self, rows: pl.DataFrame) -> pl.Series | pl.Expr:
        return rows["currency"].str.to_lowercase() != rows["currency_before"].str.to_lowercase()

    def events(self, found: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
        return found.with_columns(since="currency_before_since", before=None)


@dataclass(frozen=True, kw_only=True, eq=False)
class PriceListRule(AlertRule):
    """Base class of price-list rules, which compare competitors with your price list.

    Pass your price list to `build_price_alerts_asset` as `price_list`. The rule becomes true when a
    competitor in stock is at least `percent` below the price in `column`. A subclass with another
    condition overrides `condition`, whose rows have the columns of your price list, the
    `competitor_...` columns of a price position and `compared_with`, the price in `column`.
    """

    direction = -1
    row = "price-list row"
    counted = "current_rows"
    percent: ClassVar[float] = 0.0
    by: ClassVar[str] = "any"
    """`any` for an event for each competitor's page, `cheapest` for one event for each SKU."""
    column: ClassVar[str] = "price"
    """The price-list column that contains the price to compare against."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.where is not None:
            raise ValueError(
                f"Rule {self.name!r}: where filters products and cannot be used with a price-list "
                "rule. Remove it."
            )

    def condition(self, rows: pl.DataFrame) -> pl.Series | pl.Expr:
        price, limit = rows["competitor_price"], rows["compared_with"]
        least = 1 - self.percent / 100 + TOLERANCE
        return (price < limit * (1 - TOLERANCE)) & (price <= limit * least)


@dataclass(frozen=True, kw_only=True, eq=False)
class Undercut(PriceListRule):
    """A competitor in stock is below your price, by at least `percent`.

    The rule resets when no competitor undercuts you. Missing prices and prices in another currency
    neither trigger nor reset it.

    Attributes:
        percent: Smallest distance below your price, in percent of it; 0 for any.
        by: `cheapest` for one event for each SKU, when its first competitor undercuts you; `any`
            for one event for each competitor's page.
    """

    happened = "below your price"

    percent: float = 0.0  # type: ignore[misc]
    by: Literal["cheapest", "any"] = "cheapest"  # type: ignore[misc]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.percent < 100:
            raise ValueError(
                f"Rule {self.name!r}: percent must be from 0 to below 100, not {self.percent}."
            )
        require_choice(self, "by", ("cheapest", "any"))


@dataclass(frozen=True, kw_only=True, eq=False)
class BelowFloor(PriceListRule):
    """A competitor in stock is below a floor, such as the minimum advertised price.

    It triggers one event for each competitor's page, and resets as `Undercut` does.

    Attributes:
        column: The price-list column with the floor, in the currency of your price.
    """

    happened = "below the floor"

    column: str = "map_price"  # type: ignore[misc]


KINDS: Mapping[str, type[AlertRule]] = {
    rule.kind: rule for rule in map(globals().__getitem__, __all__) if "happened" in vars(rule)
}
"""The rules of this package by their kinds."""


def require_positive(rule: AlertRule, name: str, value: float | None) -> None:
    """Reject an amount that is not above 0."""
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise ValueError(f"Rule {rule.name!r}: {name} must be above 0, not {value}.")


def require_choice(rule: AlertRule, name: str, choices: Sequence[str]) -> None:
    """Reject an argument that is not one of the given choices."""
    if (value := getattr(rule, name)) not in choices:
        raise ValueError(
            f"Rule {rule.name!r}: {name} must be one of {', '.join(choices)}, not {value!r}."
        )


def check_rule_names(rules: Sequence[AlertRule]) -> None:
    """Reject two rules that have the same name."""
    names = [rule.name for rule in rules]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"Two rules are called {twice[0]!r}. Set a different `name` for one.")


def with_currency_changes(rules: Sequence[AlertRule]) -> list[AlertRule]:
    """Add a currency-change rule for the products that the price rules cover."""
    import polars as pl

    of_prices = [rule for rule in rules if rule.of_prices]
    if not of_prices:
        return list(rules)
    parts = [rule.where for rule in of_prices if rule.where is not None]
    where = pl.any_horizontal(parts) if len(parts) == len(of_prices) else None
    return [*rules, CurrencyChanged(where=where, days=max(rule.days for rule in of_prices))]
