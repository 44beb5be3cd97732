"""CheckedSnapshot: a snapshot to check, with its bad rows and earlier materializations."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster.frames.kinds import Rule, Verdict
from octogen_dagster.frames.products import search_key
from octogen_dagster.printable import count
from octogen_dagster.snapshots.metadata import SEARCH
from octogen_dagster.snapshots.partitions import PartitionLayout
from octogen_dagster.snapshots.publication import last_records, read_last

_SHOWN = ("catalog_key", "uuid", "product_url", "title")
_MAX_SAMPLE = 5
_ROW = "octogen/row"  # unlike any column name, even in user-defined assets
_MAX_RECORDS = 100


@dataclass(frozen=True)
class CheckedSnapshot:
    """A snapshot to check, and the rules that find bad rows."""

    instance: dg.DagsterInstance
    asset: dg.AssetKey
    partitions: PartitionLayout
    partition: str | None
    frame: pl.LazyFrame
    rules: Sequence[Rule]

    @property
    def subject(self) -> str:
        """The asset key and the partition, as shown in messages."""
        suffix = f", partition {self.partition!r}" if self.partition else ""
        return f"{self.asset.to_user_string()}{suffix}"

    @functools.cached_property
    def entries(self) -> Mapping[str, Any]:
        """The metadata values of the latest materialization."""
        return _entries(self._last[0]) if self._last else {}

    @functools.cached_property
    def earlier(self) -> list[Mapping[str, Any]]:
        """The metadata values of earlier snapshots that used the same search, newest first.

        For a time partition, these are the snapshots of earlier partitions; otherwise, they are the
        replaced snapshots. If a run has several partitions, there are no earlier snapshots.
        """
        partitions = self.partitions
        if self.partition is None and (partitions.catalogs or partitions.times):
            return []
        if not self._last:  # the materialization was wiped, so the search is unknown
            return []
        if self.partition and partitions.times:
            times = [str(key) for key in partitions.times_before(self.partition)]
            found = last_records(self.instance, self.asset, times)
            records = [found[key] for key in times if key in found]
        else:
            records = read_last(self.instance, self.asset, self.partition, _MAX_RECORDS)[1:]
        earlier = map(_entries, records)
        search = search_key(self.entries.get(SEARCH))
        return [each for each in earlier if search_key(each.get(SEARCH)) == search]

    @property
    def rows(self) -> int:
        return int(self._found.item(0, "rows"))

    def by_rules(self, check: str) -> Verdict:
        """Apply a check's rules to the snapshot's rows."""
        rules = [rule for rule in self.rules if rule.check == check]
        needed = dict.fromkeys(name for rule in rules for name in rule.columns)
        if missing := [name for name in needed if name not in self._columns]:
            named = ", ".join(missing)
            text = f"has no column {named}. Store the column, or exclude the {check!r} check."
            return Verdict(False, f"{self.subject} {text}")
        bad = {rule.name: len(self._bad(rule)) for rule in rules}
        broken = [rule for rule in rules if bad[rule.name] > rule.limit * self.rows / 100]
        figures = {"bad_rows": sum(bad.values()), "bad_rows_by_rule": bad}
        if not broken:
            text = (
                f"{self.subject} has {count(self.rows, 'row')}. The number of bad rows is "
                "within the limits."
            )
            return Verdict(True, text, figures)
        found = "; ".join(
            f"{rule.name} in {bad[rule.name]:,} of {count(self.rows, 'row')} "
            f"({100 * bad[rule.name] / self.rows:.3g} %, limit {rule.limit:.3g} %)"
            for rule in broken
        )
        figures["sample"] = self._sample(broken)
        return Verdict(False, f"{self.subject} has bad rows: {found}.", figures)

    @functools.cached_property
    def _last(self) -> list[dg.EventLogRecord]:
        return read_last(self.instance, self.asset, self.partition, 1)

    @functools.cached_property
    def _columns(self) -> list[str]:
        return self.frame.collect_schema().names()

    @functools.cached_property
    def _found(self) -> pl.DataFrame:
        usable = [rule for rule in self.rules if set(rule.columns).issubset(self._columns)]
        return self.frame.select(
            pl.len().alias("rows"),
            # Row numbers instead of counts, because the sample selects rows by number.
            *(rule.bad.arg_true().implode().alias(f"bad {rule.name}") for rule in usable),
        ).collect(engine="streaming")

    def _bad(self, rule: Rule) -> pl.Series:
        rows: pl.Series = self._found.item(0, f"bad {rule.name}")
        return rows

    def _sample(self, rules: Iterable[Rule]) -> pl.DataFrame:
        """Return the first bad rows found by each rule."""
        needed = [name for rule in rules for name in rule.columns]
        shown = dict.fromkeys([*(name for name in _SHOWN if name in self._columns), *needed])
        first = [
            pl.DataFrame({_ROW: self._bad(rule).head(_MAX_SAMPLE), "problem": rule.name})
            for rule in rules
        ]
        bad = pl.concat(first)
        numbered = self.frame.with_row_index(_ROW).select(_ROW, *shown)
        rows = numbered.filter(pl.col(_ROW).is_in(bad[_ROW].implode()))
        sample = bad.join(rows.collect(engine="streaming"), on=_ROW, maintain_order="left")
        return sample.drop(_ROW)


def _entries(record: dg.EventLogRecord) -> dict[str, Any]:
    event = record.asset_materialization
    return {name: entry.value for name, entry in (event.metadata if event else {}).items()}
