"""Incremental updates to an alerts table from its histories."""

from __future__ import annotations

import abc
import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from octogen_dagster.alerts.events import (
    ALERTS_DESCRIPTIONS,
    ALERTS_SCHEMA,
    events_of,
    first_seen_of,
)
from octogen_dagster.alerts.price_list import price_list_events, price_list_figures, price_list_rows
from octogen_dagster.alerts.rules import AlertRule, PriceListRule, with_currency_changes
from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.cells import (
    Cells,
    Row,
    cells_table,
    change_text,
    price_text,
    product_link,
)
from octogen_dagster.frames.columns import TIME
from octogen_dagster.frames.kinds import Published, Shown, TableKind
from octogen_dagster.frames.source import Metrics, Outcome, Reading, SnapshotTarget
from octogen_dagster.frames.stored import KEY, PRODUCT_KEY
from octogen_dagster.history.observed import OBSERVED, Observation, read_observed
from octogen_dagster.history.table import HISTORY_SCHEMA, ROWS_AT_ONCE, key_ranges
from octogen_dagster.history.tracking import fitted
from octogen_dagster.io_source import Query, check, collect_batches, io_source
from octogen_dagster.printable import count

if TYPE_CHECKING:
    import threading

_RULES = "octogen.rules"
"""File metadata key: the rules and their start times."""
_HISTORY = "octogen.history"
"""File metadata key: the snapshots in each history."""


class _Applied(NamedTuple):
    """A rule, its start time, and the time from which its events are recomputed."""

    rule: AlertRule
    begins: datetime
    again: datetime | None

    @property
    def keeps(self) -> pl.Expr:
        """An expression that selects the stored events to keep."""
        is_own = pl.col("rule") == self.rule.name
        return is_own if self.again is None else is_own & (pl.col("at") < self.again)


@dataclass
class _Counts:
    """The ids of removed and added events, and each rule's event count in the latest snapshot."""

    removed: set[str] = field(default_factory=set)
    added: set[str] = field(default_factory=set)
    last: Counter[str] = field(default_factory=Counter)


class Update(abc.ABC):
    """A snapshot source that updates stored alerts with new events from histories."""

    spending = None

    def __init__(
        self,
        rules: Sequence[AlertRule],
        histories: Mapping[str, Mapping[str, str]],
    ) -> None:
        """`histories` maps each history's name to its file metadata."""
        self._rules = rules
        self._said = {name: each.get(OBSERVED, "[]") for name, each in histories.items()}
        self._observed = {name: read_observed(each) for name, each in histories.items()}

    @abc.abstractmethod
    def _found(self, rules: Mapping[Any, datetime]) -> Iterator[pl.DataFrame]:
        """Yield each rule's events. `rules` maps each rule to the start time for its events."""

    @abc.abstractmethod
    def _figures(self) -> dict[str, int]:
        """Return metrics that count rows, such as `current_products`."""

    def _is_new(self, _name: str, _last: datetime, _before: Mapping[str, str]) -> bool:
        """Return True if the metrics include the events from a history's latest snapshot."""
        return True

    @contextlib.contextmanager
    def reading(self, target: SnapshotTarget, stop: threading.Event) -> Iterator[Reading]:
        """Yield a `Reading` that contains the updated alerts."""
        version, before, alerts = target.version(), target.latest_metadata(), target.latest()
        if alerts is not None and _RULES not in before:
            raise OctogenSnapshotError(
                "The stored alerts cannot be updated, because their file does not contain the "
                "alert rules. To rebuild the table, move the file to another folder."
            )
        lasts = [max(each) for each in self._observed.values() if each]
        news = [
            max(each)
            for name, each in self._observed.items()
            if each and self._is_new(name, max(each), before)
        ]
        is_last = pl.col("at").is_in(pl.Series(news, dtype=TIME).implode())
        applied, counts = self._applied(before, max(lasts, default=None)), _Counts()
        again = {
            each.rule: max(each.begins, each.again) for each in applied if each.again is not None
        }

        def frames(_query: Query, stop: threading.Event) -> Iterator[pl.DataFrame]:
            is_kept = pl.any_horizontal(pl.lit(value=False), *(each.keeps for each in applied))
            stored = collect_batches(alerts, engine="streaming") if alerts is not None else ()
            for batch in stored:
                check(stop)
                counts.removed.update(batch.filter(~is_kept)["alert_id"])
                counts.last.update(batch.filter(is_kept, is_last)["rule"])
                yield batch.filter(is_kept)
            for found in self._found(again) if again else ():
                check(stop)
                counts.added.update(found["alert_id"])
                counts.last.update(found.filter(is_last)["rule"])
                yield found

        def metrics() -> Metrics:
            figures, rule = self._figures(), self._rules[0]
            appeared, vanished = counts.added - counts.removed, counts.removed - counts.added
            of_last = {each.rule: counts.last[each.rule.name] for each in applied}
            happened = [f"{number:,} {rule.words}" for rule, number in of_last.items() if number]
            text = f"**{', '.join(happened) or 'no rule triggered'}**; "
            text += f"{count(figures[rule.counted], rule.row)}; "
            text += count(len(appeared), "new event")
            return {
                "summary": f"{text}, {len(vanished):,} vanished" if vanished else text,
                **figures,
                **{rule.name: number for rule, number in of_last.items() if number},
                **({"events_appeared": len(appeared)} if appeared else {}),
                **({"events_vanished": len(vanished)} if vanished else {}),
            }

        rules = {
            each.rule.name: {"since": each.begins.isoformat(), "is": each.rule.definition}
            for each in applied
        }
        said = {_RULES: json.dumps(rules), _HISTORY: json.dumps(self._said)}
        outcome = Outcome(file_metadata=said, metrics=metrics)
        frame = io_source(ALERTS_SCHEMA, frames, stop)
        yield Reading(frame, lambda: outcome, replaces=version)

    def _applied(self, before: Mapping[str, str], last: datetime | None) -> list[_Applied]:
        """Decide which events to recompute, based on changed rules and snapshots."""
        if last is None:
            return []
        said = _observed_before(before)
        differ = [
            at
            for name in said.keys() | self._observed.keys()
            for at in {*said.get(name, {}), *self._observed.get(name, {})}
            if said.get(name, {}).get(at) != self._observed.get(name, {}).get(at)
        ]
        differs = min(differ, default=None)
        rules, applied = json.loads(before.get(_RULES, "{}")), []
        for rule in self._rules:
            begins, again = last - timedelta(days=rule.days), differs
            known = rules.get(rule.name)
            if known is None or not rule.is_defined_by(known["is"]):
                again = min(begins, differs or begins)
            if known is not None:
                begins = min(begins, datetime.fromisoformat(known["since"]))
            applied.append(_Applied(rule, begins, again))
        return applied


def _observed_before(file_metadata: Mapping[str, str]) -> dict[str, dict[datetime, Observation]]:
    """Return each history's snapshots, as recorded in the alerts file's metadata."""
    said = json.loads(file_metadata.get(_HISTORY, "{}"))
    return {name: read_observed({OBSERVED: each}) for name, each in said.items()}


class AlertsUpdate(Update):
    """Updates the alerts for product rules."""

    def __init__(
        self,
        rules: Sequence[AlertRule],
        history: pl.LazyFrame,
        history_metadata: Mapping[str, str],
        products: pl.LazyFrame,
    ) -> None:
        """`products` is the current snapshot. A rule's `where` can use the snapshot's columns."""
        super().__init__(with_currency_changes(rules), {"": history_metadata})
        self._history = fitted(history, HISTORY_SCHEMA)
        self._products = products

    def _figures(self) -> dict[str, int]:
        is_there = self._history.select(pl.col("is_current").sum())
        return {"current_products": int(is_there.collect(engine="streaming").item())}

    def _found(self, rules: Mapping[Any, datetime]) -> Iterator[pl.DataFrame]:
        since = min(rules.values())
        touched = self._history.filter(pl.any_horizontal(pl.col("valid_from", "valid_to") >= since))
        keys = touched.select(KEY.unique()).collect(engine="streaming").to_series()
        rows = self._history
        if len(keys) <= ROWS_AT_ONCE:  # read them once instead of once for each range
            rows = rows.filter(KEY.is_in(keys.implode())).collect(engine="streaming").lazy()
        catalogs = rows.select(pl.col("catalog_key").unique()).collect(engine="streaming")
        first_seen = first_seen_of(self._observed[""], catalogs.to_series().to_list())
        for is_within in key_ranges(rows):
            of_products = rows.filter(is_within).collect(engine="streaming")
            products = self._current(of_products, is_within)
            yield events_of(of_products, products, rules, first_seen)

    def _current(self, rows: pl.DataFrame, is_within: pl.Expr) -> pl.DataFrame:
        """Return the current products with the columns that the rules use in `where`."""
        asked = {*PRODUCT_KEY}.union(
            *(rule.where.meta.root_names() for rule in self._rules if rule.where is not None)
        )
        columns = [name for name in self._products.collect_schema() if name in asked]
        keys = rows.select(KEY.unique()).to_series()
        keyed = self._products.select(columns).with_columns(pl.col(PRODUCT_KEY).cast(pl.String))
        found = keyed.filter(is_within & KEY.is_in(keys.implode())).collect(engine="streaming")
        return found.unique(PRODUCT_KEY)


class PriceListAlertsUpdate(Update):
    """Updates the alerts for price-list rules from the product and price-list histories."""

    def __init__(
        self,
        rules: Sequence[PriceListRule],
        history: pl.LazyFrame,
        price_list: pl.LazyFrame,
        histories: Mapping[str, Mapping[str, str]],
    ) -> None:
        super().__init__(rules, histories)
        self._history = history
        self._price_list = price_list_rows(price_list, rules)

    def _is_new(self, name: str, last: datetime, before: Mapping[str, str]) -> bool:
        # The events of a history that is unchanged for weeks would otherwise be counted every day.
        said = _observed_before(before).get(name, {})
        return said.get(last) != self._observed[name][last]

    def _figures(self) -> dict[str, int]:
        return price_list_figures(self._history, self._price_list)

    def _found(self, rules: Mapping[Any, datetime]) -> Iterator[pl.DataFrame]:
        yield from price_list_events(self._history, self._price_list, rules)


def largest_alerts(
    alerts: pl.LazyFrame, file_metadata: Mapping[str, str], number: int
) -> pl.DataFrame:
    """Return the events in the latest snapshot, largest price changes first."""
    lasts = [max(each) for each in _observed_before(file_metadata).values() if each]
    of_last = alerts.filter(pl.col("at").is_in(pl.Series(lasts, dtype=TIME).implode()))
    size = pl.col("change_percent").abs().fill_null(0)
    return (
        of_last.sort(size, "rule", "uuid", descending=[True, False, False]).head(number).collect()
    )


def alerts_preview(alerts: pl.DataFrame) -> pl.DataFrame:
    return cells_table(map(alert_cells, alerts.to_dicts()))


def alert_cells(row: Row) -> Cells:
    before, after = row["before"], row["after"]
    prices = [price_text(after if before == after else before, row["currency"])]
    if after is not None and before not in (None, after):
        prices = [f"{before:,.2f}", price_text(after, row["currency"])]
    change = row["change_percent"]
    return {
        "alert": (row["rule"] or "").replace("_", " "),
        "sku": row["sku"] or "",
        "product": product_link(row, row["title"]),
        "price": " → ".join(prices) if prices[0] else price_text(after, row["currency"]),
        "change": change_text(change) if change else "",
    }


def _largest(of: Published) -> Shown:
    return {"largest_alerts": alerts_preview(largest_alerts(of.rows, of.file_metadata, 10))}


ALERTS_KIND = TableKind(
    ALERTS_SCHEMA,
    ALERTS_DESCRIPTIONS,
    preview=lambda _: pl.DataFrame(),  # `largest_alerts` is shown instead
    parts={"largest alerts": _largest},
    first=("largest_alerts", "appeared", "disappeared"),
    line=None,
)
