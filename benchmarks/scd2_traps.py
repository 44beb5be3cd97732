"""What is difficult about a past, tried with the history and with dlt's `scd2` into DuckDB.

`python -m benchmarks.scd2_traps` prints a table: for each trap, what is as of the time of each
snapshot, and how many rows there are.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from unittest import mock

import duckdb
import polars as pl

from benchmarks import history, scd2
from benchmarks.history import ASSET, at
from octogen_dagster import HISTORY_SCHEMA, forget_snapshot, scan_history

_COLUMNS = ["catalog_key", "uuid", "product_url", *scd2.TRACKED]
_Days = Mapping[int, pl.DataFrame]


def _products(prices: Mapping[str, float], *, catalog: str = "acme") -> pl.DataFrame:
    """A snapshot with a row for each product, by its name."""
    schema = {name: HISTORY_SCHEMA[name] for name in _COLUMNS}
    rows = [
        {
            "catalog_key": catalog,
            "uuid": f"{catalog}-{name}",
            "product_url": f"https://{catalog}.com/{name}",
            "title": name,
            "current_price": price,
            "currency": "USD",
            "in_stock": True,
        }
        for name, price in prices.items()
    ]
    return pl.DataFrame(rows, schema=schema)


def _kill(*_: object, **__: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


class Ours:
    """The history. A run puts in the snapshot, and the one before if no run has."""

    points = (
        "octogen_dagster.storage.store.Store.publish",
        "dagster.OutputContext.add_output_metadata",
    )

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, days: _Days) -> None:
        history.put_in(self._folder, {day: frame.lazy() for day, frame in days.items()})

    def forget(self, day: int) -> None:
        forget_snapshot(str(self._folder), at(day), asset=ASSET)

    def rows(self) -> pl.DataFrame:
        return scan_history(str(self._folder), asset=ASSET).collect()

    def as_of(self, day: int) -> pl.DataFrame:
        return scan_history(str(self._folder), asset=ASSET, as_of=at(day)).collect()


class Dlt:
    """dlt. A run loads the last of the snapshots."""

    points = (
        "dlt.normalize.normalize.Normalize.run",
        "dlt.load.load.Load.run",
        "dlt.load.load.Load.complete_package",
    )

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, days: _Days) -> None:
        scd2.put_in(self._folder, days[max(days)].lazy(), at(max(days)))

    def forget(self, day: int) -> None:
        """Undo by hand what the load of the snapshot did, since dlt cannot."""
        moment = at(day).isoformat()
        with duckdb.connect(str(self._folder / "history.duckdb")) as connection:
            connection.sql(f"DELETE FROM dataset.products WHERE _dlt_valid_from = '{moment}'")
            connection.sql(
                f"UPDATE dataset.products SET _dlt_valid_to = NULL WHERE _dlt_valid_to = '{moment}'"
            )

    def rows(self) -> pl.DataFrame:
        return scd2.read(self._folder)

    def as_of(self, day: int) -> pl.DataFrame:
        is_over = (pl.col("valid_to") <= at(day)).fill_null(value=False)
        return self.rows().filter((pl.col("valid_from") <= at(day)) & ~is_over)


_Keeper = Ours | Dlt
_Step = Callable[[_Keeper], object]


def _run(days: _Days) -> _Step:
    return lambda keeper: keeper.run(days)


def _forget(day: int) -> _Step:
    return lambda keeper: keeper.forget(day)


def _killed(days: _Days, point: int) -> _Step:
    def step(keeper: _Keeper) -> None:
        target = keeper.points[point % len(keeper.points)]
        process = multiprocessing.get_context("spawn").Process(
            target=_run_until, args=(keeper, days, target)
        )
        process.start()
        process.join()
        if process.exitcode != -signal.SIGKILL:
            raise RuntimeError(f"{target} was not called.")

    return step


def _run_until(keeper: _Keeper, days: _Days, target: str) -> None:
    with mock.patch(target, _kill):
        keeper.run(days)


@dataclass
class Trap:
    """What is done, what should be as of days, and in how many rows."""

    name: str
    steps: Sequence[_Step]
    expected: _Days
    rows: int

    def judged(self, keeper: _Keeper) -> str:
        """Say whether a keeper is right, and otherwise what is wrong."""
        for step in self.steps:
            step(keeper)
        wrong = []
        for day, frame in self.expected.items():
            found = keeper.as_of(day).select(_COLUMNS).sort(scd2.KEY)
            if not found.equals(frame.select(_COLUMNS).sort(scd2.KEY)):
                both = found.join(frame, on=_COLUMNS, nulls_equal=True, how="semi")
                wrong.append(
                    f"as of day {day} {len(both)} of {len(frame)} products are right"
                    f" and {len(found) - len(both)} rows wrong"
                )
        rows = keeper.rows()
        backwards = rows.filter(pl.col("valid_to") <= pl.col("valid_from"))
        if len(backwards):
            wrong.append(f"{len(backwards)} rows end before they begin")
        if len(rows) != self.rows:
            wrong.append(f"{len(rows)} rows in place of {self.rows}")
        times = rows.select(pl.concat_list("valid_from", "valid_to").explode().drop_nulls())
        days = [at(day) for day in self.expected]
        if not times.to_series().is_in(days).all():
            wrong.append("times that no snapshot has")
        return "; ".join(wrong) or "right"


def _traps() -> list[Trap]:
    one, two = _products({"a": 10, "b": 20, "c": 30}), _products({"a": 11, "b": 20, "c": 30})
    three = _products({"a": 12, "b": 20, "c": 30})
    without = _products({"a": 10, "b": 20})
    cents = _products({"a": 1000, "b": 2000, "c": 3000})
    other = _products({"x": 5, "y": 6}, catalog="bolt")
    none = one.clear()
    traps = [
        Trap("boundaries by `fetched_at`", [_run({0: one}), _run({1: two})], {0: one, 1: two}, 4),
        Trap(
            "a late snapshot, of the day between two",
            [_run({0: one}), _run({2: three}), _run({1: two})],
            {0: one, 1: two, 2: three},
            5,
        ),
        Trap(
            "the last snapshot again",
            [_run({0: one}), _run({1: two}), _run({1: two})],
            {0: one, 1: two},
            4,
        ),
        Trap(
            "the first snapshot again, after a newer one",
            [_run({0: one}), _run({1: two}), _run({0: one})],
            {0: one, 1: two},
            4,
        ),
        Trap(
            "a product that comes back",
            [_run({0: one}), _run({1: without}), _run({2: one})],
            {0: one, 1: without, 2: one},
            4,
        ),
        Trap(
            "a withheld catalog of two",
            [
                _run({0: pl.concat([one, other])}),
                _run({1: two}),
                _run({2: pl.concat([two, other])}),
            ],
            {0: pl.concat([one, other]), 1: pl.concat([two, other]), 2: pl.concat([two, other])},
            6,
        ),
        Trap(
            "a snapshot without products",
            [_run({0: one}), _run({1: none}), _run({2: two})],
            {0: one, 1: one, 2: two},
            4,
        ),
        Trap(
            "forgetting the last snapshot",
            [_run({0: one}), _run({1: cents}), _forget(1)],
            {0: one},
            3,
        ),
        Trap(
            "forgetting a snapshot before the last",
            [_run({0: one}), _run({1: cents}), _run({2: two}), _forget(1)],
            {0: one, 1: one, 2: two},
            4,
        ),
    ]
    for point in range(max(len(Ours.points), len(Dlt.points))):
        traps += [
            Trap(
                f"a killed load, run again (kill {point + 1})",
                [_run({0: one}), _killed({1: two}, point), _run({1: two})],
                {0: one, 1: two},
                4,
            ),
            Trap(
                f"a killed load, then the next day (kill {point + 1})",
                [_run({0: one}), _killed({1: two}, point), _run({1: two, 2: three})],
                {0: one, 1: two, 2: three},
                5,
            ),
        ]
    return traps


def main() -> None:
    """Print the table."""
    logging.disable(logging.WARNING)
    print("| trap | the history | dlt's `scd2` |\n| --- | --- | --- |")
    for trap in _traps():
        verdicts = []
        for keeper in (Ours, Dlt):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    verdicts.append(trap.judged(keeper(Path(folder))))
                except Exception as error:
                    verdicts.append(f"{type(error).__name__}: {error}")
        print(f"| {trap.name} | {verdicts[0]} | {verdicts[1]} |", flush=True)


if __name__ == "__main__":
    main()
