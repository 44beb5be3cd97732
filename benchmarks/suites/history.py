"""The history of products: a daily update, its size after days, and the time of queries."""

import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from benchmarks.measure import Rounds, Row, run_rounds, say, worst
from benchmarks.processes import Server, run_python, server
from benchmarks.snapshots import make_snapshots
from benchmarks.source import Generation

_SMALL, _LARGE = 100_000, 1_000_000
_FILES = {_SMALL: "read/products.parquet", _LARGE: "previous.parquet"}
_DAYS_BEFORE = 3
_SIZES = {30: 0.6, 180: 1.1}
"""The largest size after days, as a share of the size of one snapshot."""
_HEAVY = {"first": ("first day", 500), "all_changed": ("every price changed", 550)}
"""What is measured once, and its largest peak in MB."""
_MAX_ROUNDS = 3
_DLT = "benchmarks.scd2"


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Compare the update with the read of the snapshot, and the file with a snapshot."""
    rounds = min(rounds, _MAX_ROUNDS)
    for generation in generations:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            say("  the snapshots")
            make_snapshots(generation, folder)
            for products, file in _FILES.items():
                say(f"  a history of {products:,} products")
                _child("make", folder / file, folder / str(products), _DAYS_BEFORE)
            small = folder / _FILES[_SMALL]
            say("  180 days")
            sizes = _child("sizes", small, folder / "sizes", max(_SIZES))
            say("  30 days by dlt")
            _child("make", small, folder / "dlt", _DAYS_BEFORE, _DLT)
            of_dlt = _child("sizes", small, folder / "dlt-sizes", min(_SIZES), _DLT)
            say("  a million products that are new, and of which all change")
            large = (folder / _FILES[_LARGE], folder / str(_LARGE), _DAYS_BEFORE)
            heavy = {what: _child(what, *large) for what in _HEAVY}
            say("  alerts")
            _child("alerts_before", *large)
            with server(generation, {str(products): products for products in _FILES}) as local:
                measured = run_rounds(_contenders(local, folder), rounds)
        for products in _FILES:
            yield _cpu(generation, products, measured)
        updates = measured.by_contender[f"update {_LARGE}"]
        what = "daily update, 1,000,000 products"
        peaks = [each["peak_mb"] for each in updates]
        yield worst("history", generation, f"{what}, memory", peaks, 500)
        yield measured.row(
            "history",
            generation,
            "alerts, 1,000,000 products ÷ update of their history (CPU)",
            ("alerts", f"update {_LARGE}"),
            itemgetter("cpu_seconds"),
            "s",
            0.5,
        )
        peaks = [each["peak_mb"] for each in measured.by_contender["alerts"]]
        what = "alerts, 1,000,000 products, memory"
        yield worst("history", generation, what, peaks, 500)
        for what, (label, most) in _HEAVY.items():
            peaks = [heavy[what]["peak_mb"]]
            text = f"{label}, 1,000,000 products, memory"
            yield worst("history", generation, text, peaks, most)
        for days, target in _SIZES.items():
            size = sizes[days - 1]
            what = f"file after {days} days ÷ one snapshot (size)"
            yield Row("history", generation, what, [size], size, target)
        for query, what, target in (
            ("as_of", "`as_of` query, 1,000,000 products", 0.2),
            ("past", "history of one product of 1,000,000", 0.02),
        ):
            seconds = [each[query] for each in updates]
            median = statistics.median(seconds)
            yield Row("history", generation, what, seconds, median, target, unit=" s")
        yield from _beside_dlt(generation, measured, sizes[min(_SIZES) - 1], of_dlt)


def _beside_dlt(
    generation: Generation,
    measured: Rounds[dict[str, float]],
    size: float,
    of_dlt: dict[str, float],
) -> Iterator[Row]:
    pair = (f"update {_SMALL}", "update by dlt")
    what = f"daily update, {_SMALL:,} products ÷ dlt's `scd2` into DuckDB"
    for figure, label in (("cpu_seconds", "CPU"), ("seconds", "time")):
        value = itemgetter(figure)
        yield measured.row("history", generation, f"{what} ({label})", pair, value, "s")
    for file, label in (("database", "as it is"), ("copy", "compacted")):
        what = f"file after {min(_SIZES)} days ÷ dlt's DuckDB file, {label} (size)"
        ratio = size / of_dlt[file]
        medians = f"{size:.2f} ÷ {of_dlt[file]:.2f} snapshots"
        yield Row("history", generation, what, [ratio], ratio, medians=medians)


def _cpu(generation: Generation, products: int, measured: Rounds[dict[str, float]]) -> Row:
    return measured.row(
        "history",
        generation,
        f"daily update, {products:,} products ÷ reading them (CPU)",
        (f"update {products}", f"read {products}"),
        itemgetter("cpu_seconds"),
        "s",
        0.15,
    )


def _contenders(local: Server, folder: Path) -> dict[str, Any]:
    contenders: dict[str, Any] = {}
    for products, file in _FILES.items():
        contenders[f"read {products}"] = partial(_read, local, str(products))
        contenders[f"update {products}"] = partial(
            _child, "update", folder / file, folder / str(products), _DAYS_BEFORE
        )
    large = (folder / _FILES[_LARGE], folder / str(_LARGE), _DAYS_BEFORE)
    contenders["alerts"] = partial(_child, "alerts", *large)
    contenders["update by dlt"] = partial(
        _child, "update", folder / _FILES[_SMALL], folder / "dlt", _DAYS_BEFORE, _DLT
    )
    return contenders


def _read(local: Server, catalog: str) -> dict[str, float]:
    return {"cpu_seconds": local.measure("snapshot", [catalog]).cpu_seconds}


def _child(
    what: str, products: Path, folder: Path, days: int, module: str = "benchmarks.history"
) -> Any:
    arguments = ["-m", module, what, str(products), str(folder), str(days)]
    return json.loads(run_python(arguments).splitlines()[-1])
