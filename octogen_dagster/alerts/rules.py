"""Alert rules. Each rule is a class with arguments, a condition and a description of what happened.

`kind`, the YAML fields and their JSON schema are derived from the class. Polars is imported only
inside methods, because Dagster imports this module to list components.
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
"""The relative floating-point tolerance for comparing a price with a threshold."""
_NAME = re.compile(r"[A-Za-z0-9_]+")
_RESERVED = (
    "currency_changed",
    "current_products",
    "current_rows",
    "events_appeared",
    "events_vanished",
    "fresh",
)
"""Names already used by a built-in rule, a metric or a check of the alerts asset."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AlertRule:
    """Base class of alert rules, including rules that you write.

    Write a rule as a frozen dataclass with the class attribute `happened` and the method
    `condition`. The dataclass fields are the rule's arguments in Python and in YAML. `kind` is the
    class name in snake case.

    Attributes:
        where: An expression that selects the products the rule applies to, such as
            `pl.col("brand").struct.field("name") == "Acme"`; None for all products. It can use the
            columns of the history and of the current snapshot. For a product that disappeared, the
            brand and category are taken from the history, and the snapshot's other columns are
            null. Pass a list to `is_in`, not a set: the order of a set differs between processes,
            so the rule would count as changed.
        name: The name of the rule in the alerts table, and of the rule's check. Defaults to `kind`.
        days: The number of past days in which a new rule looks for events, and the period for the
            `lowest` or `median` price.
        again_after: The cool-down after an event. During this time, the rule reports the product
            again only if its price, in the same currency, is even lower (or, for `PriceRose`, even
            higher). None for no cool-down.
        max_products: The number of products that can match in one snapshot before the rule's check
            warns.
        max_percent: The percentage of the current products that can match in one snapshot before
            the rule's check warns. The check warns only if `max_products` is exceeded, too. None
            for no percentage limit.
    """

    kind: ClassVar[str] = ""
    """The rule's name in YAML, derived from the class name."""
    happened: ClassVar[str]
    """What the summary says after the number of events, such as `sold out` in `5 sold out`."""
    of_prices: ClassVar[bool] = False
    """True if the rule compares prices. The alerts then also report currency changes."""
    at: ClassVar[str] = "valid_from"
    """The column that holds an event's time."""
    direction: ClassVar[int] = 0
    """The price changes to report during the cool-down: drops (-1), rises (1) or none (0)."""
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
                f"The rule name {self.name!r} is invalid. A name can contain only letters, digits "
                f"and underscores. Reserved names are {', '.join(_RESERVED)}."
            )
        if self.where is not None:
            import polars as pl

            if not isinstance(self.where, pl.Expr):
                kind = type(self.where).__name__
                raise TypeError(f"{subject}: `where` must be a Polars expression; got {kind}.")
        for name in ("days", "max_products", "max_percent", "percent", "amount", "price"):
            value = getattr(self, name, None)
            if isinstance(value, str):
                raise TypeError(f"{subject}: `{name}` must be a number, such as 10; got {value!r}.")
        if self.days < 1:
            raise ValueError(f"{subject}: `days` must be at least 1; got {self.days}.")
        if self.again_after is not None:
            if not isinstance(self.again_after, timedelta):
                raise TypeError(
                    f"{subject}: `again_after` must be a timedelta, such as timedelta(days=7); got "
                    f"{self.again_after!r}."
                )
            if self.again_after <= timedelta(0):
                raise ValueError(
                    f"{subject}: `again_after` must be greater than 0; got {self.again_after}."
                )
        if self.max_products < 0 or (self.max_percent or 0) < 0:
            raise ValueError(f"{subject}: `max_products` and `max_percent` must be at least 0.")
        for name in ("percent", "max_percent"):
            if 0 < (getattr(self, name, None) or 0) < 1:
                warn_of_share(f"{subject}: {name}", getattr(self, name))

    def condition(self, rows: pl.DataFrame) -> pl.Series | pl.Expr:
        """Return a Boolean series or expression that is true for the rows that trigger the rule.

        Args:
            rows: The history of some products, with the columns of `HISTORY_SCHEMA`, sorted by
                `uuid`, `catalog_key` and `valid_from`. `after` is the row's price, and `in_stock`
                is its stock status; each is null if unknown. `price`, `currency` and `stock` are
                the last known values as of the row. `price_before`, `currency_before` and
                `stock_before` are the last known values before the row. The columns
                `..._before_since` contain the times from which these values applied. `price_before`
                is null if the previous price is in another currency. `is_new` is true if the
                previous snapshot does not contain the product. `is_last` is true if the next
                snapshot does not contain the product. `there_since` and `gone_since` are the times
                at which the product last appeared and disappeared. `first_seen` is the time of the
                catalog's first snapshot.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a condition.")

    def events(self, found: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the events for the rows that met the condition.

        In an event, `before` is the previous value, and `since` is the time from which that value
        applied. Override this method to compare with another value or to drop rows.

        Args:
            found: The rows to report, which met the condition.
            rows: All rows, as passed to `condition`.
        """
        return found.with_columns(since="price_before_since", before="price_before")

    @property
    def words(self) -> str:
        """The words after the number of events in the materialization's summary."""
        return self.happened if self.name == self.kind else self.name.replace("_", " ")

    @property
    def definition(self) -> dict[str, Any]:
        """The rule's definition. Runs store it, so that later runs can detect changes to the rule.

        An expression's serialized form can differ between Polars versions, so the digest of `where`
        is stored together with the version.
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
        """Return True if the rule matches a stored definition.

        Only the fields that both definitions contain are compared.
        """
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
        # The rule is triggered only if it was false for the previous price, compared with the same
        # reference price.
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
    """The price dropped by at least `percent` and at least `amount`, if set.

    Only prices in the same currency are compared. A product whose currency changes triggers a
    `currency_changed` event.

    Attributes:
        percent: Minimum drop, as a percentage of the reference price.
        amount: Minimum drop, in the product's currency.
        against: The reference price: the price just `before` the change, or the `lowest` or
            `median` price in the last `days` days. The median weights each price by its duration.
    """

    happened = "dropped"
    direction = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class PriceRose(_PriceMove):
    """The price rose by at least `percent` and at least `amount`, if set.

    Attributes:
        percent: Minimum rise, as a percentage of the reference price.
        amount: Minimum rise, in the product's currency.
        against: The reference price: the price just `before` the change, or the `lowest` or
            `median` price in the last `days` days. The median weights each price by its duration.
    """

    happened = "rose"
    direction = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class PriceBelow(AlertRule):
    """The price is at or below `price`. New products can also trigger the rule.

    The rule resets when the product's price rises above `price` again. Prices in other currencies
    are not compared.

    Attributes:
        price: The threshold. It is the event's `before` value.
        currency: ISO 4217 code for the threshold. Defaults to each product's currency.
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
    """The product is new in its catalog or has returned to it.

    A catalog's first snapshot triggers no events.
    """

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
    """The product's currency changed. `CurrencyChanged` is added if a rule compares prices."""

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

    Pass your price list's history to `build_price_alerts_asset` as `price_list`. The rule becomes
    true when an in-stock competitor is at least `percent` below the price in `column`. Override
    `condition` to check another condition. The argument `rows` has the columns of your price list,
    the `competitor_...` columns of a price position, and `compared_with`, which is the price in
    `column`.
    """

    direction = -1
    row = "price-list row"
    counted = "current_rows"
    percent: ClassVar[float] = 0.0
    by: ClassVar[str] = "any"
    """`any` reports one event per competitor page, and `cheapest` reports one event per SKU."""
    column: ClassVar[str] = "price"
    """The price-list column that contains the price to compare against."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.where is not None:
            raise ValueError(
                f"Rule {self.name!r}: `where` filters products and cannot be used in a price-list "
                "rule. Remove `where` from the rule."
            )

    def condition(self, rows: pl.DataFrame) -> pl.Series | pl.Expr:
        price, limit = rows["competitor_price"], rows["compared_with"]
        least = 1 - self.percent / 100 + TOLERANCE
        return (price < limit * (1 - TOLERANCE)) & (price <= limit * least)


@dataclass(frozen=True, kw_only=True, eq=False)
class Undercut(PriceListRule):
    """An in-stock competitor is at least `percent` below your price.

    The rule resets when no competitor undercuts you. Missing prices and prices in another currency
    neither trigger nor reset the rule.

    Attributes:
        percent: Minimum difference, as a percentage of your price. With 0, any difference counts.
        by: `cheapest` reports one event per SKU, when the first competitor undercuts you. `any`
            reports one event per competitor page.
    """

    happened = "below your price"

    percent: float = 0.0  # type: ignore[misc]
    by: Literal["cheapest", "any"] = "cheapest"  # type: ignore[misc]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.percent < 100:
            raise ValueError(
                f"Rule {self.name!r}: `percent` must be at least 0 and less than 100; got "
                f"{self.percent}."
            )
        require_choice(self, "by", ("cheapest", "any"))


@dataclass(frozen=True, kw_only=True, eq=False)
class BelowFloor(PriceListRule):
    """An in-stock competitor is below a floor price, such as the minimum advertised price.

    There is one event per competitor page. The rule resets when the competitor's price is no longer
    below the floor price.

    Attributes:
        column: The price-list column that contains the floor price, in the same currency as your
            price.
    """

    happened = "below the floor"

    column: str = "map_price"  # type: ignore[misc]


KINDS: Mapping[str, type[AlertRule]] = {
    rule.kind: rule for rule in map(globals().__getitem__, __all__) if "happened" in vars(rule)
}
"""The built-in rules by kind."""


def require_positive(rule: AlertRule, name: str, value: float | None) -> None:
    """Raise an error unless the value is a finite number greater than 0."""
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise ValueError(f"Rule {rule.name!r}: `{name}` must be greater than 0; got {value}.")


def require_choice(rule: AlertRule, name: str, choices: Sequence[str]) -> None:
    """Raise an error unless the argument has one of the allowed values."""
    if (value := getattr(rule, name)) not in choices:
        raise ValueError(
            f"Rule {rule.name!r}: `{name}` must be one of {', '.join(choices)}; got {value!r}."
        )


def check_rule_names(rules: Sequence[AlertRule]) -> None:
    """Raise an error if two rules have the same name."""
    names = [rule.name for rule in rules]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"Two rules are named {twice[0]!r}. Set a different `name` for one of the rules."
        )


def with_currency_changes(rules: Sequence[AlertRule]) -> list[AlertRule]:
    """Add a `CurrencyChanged` rule for the products selected by rules that compare prices."""
    import polars as pl

    of_prices = [rule for rule in rules if rule.of_prices]
    if not of_prices:
        return list(rules)
    parts = [rule.where for rule in of_prices if rule.where is not None]
    where = pl.any_horizontal(parts) if len(parts) == len(of_prices) else None
    return [*rules, CurrencyChanged(where=where, days=max(rule.days for rule in of_prices))]
