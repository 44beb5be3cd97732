"""Many small catalogs in one run: time near its limit, CPU time, events and memory."""

import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, run_rounds
from benchmarks.processes import Server, run_python, server
from benchmarks.source import API_KEY, PAGE_SIZE, Generation, Source

_CATALOGS, _PRODUCTS = 200, 1_000
_SMALL, _FEW = 1_000, 100
"""Catalogs and products of the run whose memory is measured."""
_ALONE = 3
"""Of so many runs of one catalog the mean is taken for each of the others."""
_MAX_ROUNDS = 2
_MAX_EVENT_BYTES = 16_000
_SECONDS_PER_PAGE = 0.06
_NEAR_THE_LIMIT = {8: 1.2, 16: 1.4}
"""By requests at once, the wall time of a run ÷ what its connections need for the pages."""


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Compare a run of 200 catalogs with the time of its requests, 200 scans and 200 runs."""
    for generation in generations:
        catalogs = dict.fromkeys(_keys(_CATALOGS), _PRODUCTS)
        yield from _near_the_limit(generation, catalogs, min(rounds, _MAX_ROUNDS))
        with server(generation, catalogs) as local, tempfile.TemporaryDirectory() as home:
            contenders = {
                "run": partial(_measure, "run", local),
                "scans": partial(_measure, "scans", local),
                "runs": partial(_runs, local, Path(home)),
            }
            _runs(local, Path(home))  # warms byte code, file cache and database
            results = run_rounds(contenders, min(rounds, _MAX_ROUNDS))
        what = f"one run of {_CATALOGS} catalogs"
        for below, text, target in (
            ("scans", "a `scan_products` for each", 2.5),
            ("runs", "a run for each", 0.06),
        ):
            yield results.row(
                "many", generation, f"{what} ÷ {text} (CPU)", ("run", below), _cpu, "s", target
            )
        sizes = [each["event_bytes"] / 1_000 for each in results.by_contender["run"]]
        yield Row(
            "many",
            generation,
            "event log for each catalog",
            sizes,
            max(sizes),
            _MAX_EVENT_BYTES / 1_000,
            " kB",
        )
        with server(generation, dict.fromkeys(_keys(_SMALL), _FEW)) as local:
            memory = _measure("twice", local)
        again = memory["again_seconds"] / memory["cpu_seconds"]
        yield Row(
            "many",
            generation,
            f"second run of {_SMALL:,} catalogs ÷ first (CPU)",
            [again],
            again,
            None,
            medians=f"CPU {memory['again_seconds']:.1f} s ÷ {memory['cpu_seconds']:.1f} s",
        )
        ratio = memory["late_mb"] / memory["early_mb"]
        yield Row(
            "many",
            generation,
            f"memory after {_SMALL:,} catalogs ÷ after 50",
            [ratio],
            ratio,
            1.2,
            medians=f"{memory['late_mb']:.0f} MB ÷ {memory['early_mb']:.0f} MB",
        )


def _near_the_limit(
    generation: Generation, catalogs: Mapping[str, int], rounds: int
) -> Iterator[Row]:
    pages = sum(catalogs.values()) // PAGE_SIZE
    with server(generation, catalogs, _SECONDS_PER_PAGE) as local:
        contenders = {
            str(number): partial(_measure, "run", local, number) for number in _NEAR_THE_LIMIT
        }
        results = run_rounds(contenders, rounds)
    for number, target in _NEAR_THE_LIMIT.items():
        least = pages * _SECONDS_PER_PAGE / number
        seconds = [each["seconds"] for each in results.by_contender[str(number)]]
        yield Row(
            "many",
            generation,
            f"time of {len(catalogs)} catalogs, {number} concurrent ÷ ideal",
            [each / least for each in seconds],
            statistics.median(seconds) / least,
            target,
            medians=f"{statistics.median(seconds):.2f} s ÷ {least:.2f} s",
        )


def _keys(number: int) -> list[str]:
    return [f"shop{each:04}" for each in range(number)]


def _cpu(measured: Mapping[str, Any]) -> float:
    seconds: float = measured["cpu_seconds"]
    return seconds


def _measure(what: str, local: Server, concurrency: int = 8) -> dict[str, Any]:
    source = Source(local.base_url, local.generation, list(local.catalogs), concurrency)
    number = str(len(local.catalogs))
    output = run_python(["-m", "benchmarks.many_catalogs", what, number, source.to_json()])
    measured: dict[str, Any] = json.loads(output.splitlines()[-1])
    return measured


def _runs(local: Server, home: Path) -> dict[str, Any]:
    """Read some catalogs in a run and a process each; return the CPU time that all would take."""
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    environment = {
        "DAGSTER_HOME": str(home),
        "OCTOGEN_PLATFORM_API_KEY": API_KEY,
        "OCTOGEN_BASE_URL": local.base_url,
        "SNAPSHOTS": str(home / "snapshots"),
        "CATALOGS": str(len(local.catalogs)),
    }
    command = ["-m", "dagster", "asset", "materialize", "--select", "products"]
    seconds = []
    for key in list(local.catalogs)[:_ALONE]:
        before = _children_cpu_seconds()
        options = ["--partition", key, "-f", "benchmarks/locations/many.py"]
        run_python([*command, *options], environment)
        seconds.append(_children_cpu_seconds() - before)
    return {"cpu_seconds": statistics.mean(seconds) * len(local.catalogs)}


def _children_cpu_seconds() -> float:
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
