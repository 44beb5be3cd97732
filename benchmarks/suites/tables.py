"""Tables in PostgreSQL and DuckDB, beside a bare load and dlt."""

import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.measure import Rounds, Row, run_rounds, say, worst
from benchmarks.processes import run_python
from benchmarks.snapshots import make_snapshots
from benchmarks.source import Generation

_SMALL, _LARGE = 100_000, 1_000_000
_FILES = {_SMALL: "read/products.parquet", _LARGE: "previous.parquet"}
_BARE = {
    "PostgreSQL": "a bare `adbc_ingest`",
    "DuckDB": "a bare `INSERT … FROM read_parquet`",
}
_MAX_ROUNDS = 3
_number = itertools.count()


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Compare the loads by an asset, and the memory of a large one."""
    from tests.postgresql import running_postgresql

    rounds = min(rounds, _MAX_ROUNDS)
    for generation in generations:
        with tempfile.TemporaryDirectory() as name, running_postgresql() as server:
            folder = Path(name)
            say("  the snapshots")
            make_snapshots(generation, folder)
            load = partial(_load, folder, server)
            for engine, bare in _BARE.items():
                whats = ("asset", "bare", "dlt", "catalogs")
                contenders = {what: partial(load, engine, what, _SMALL) for what in whats}
                measured = run_rounds(contenders, rounds)
                yield from _ratios(generation, engine, bare, measured)
                say(f"  {_LARGE:,} products into {engine}")
                peaks = [load(engine, "asset", _LARGE)["peak_mb"] for _ in range(rounds)]
                what = f"{engine}, {_LARGE:,} products, memory"
                yield worst("tables", generation, what, peaks, 450)


def _ratios(
    generation: Generation, engine: str, bare: str, measured: Rounds[dict[str, float]]
) -> Iterator[Row]:
    what = f"{engine}, {_SMALL:,} products"
    for pair, text, target in (
        (("asset", "bare"), f"{what} ÷ {bare}", 1.5),
        (("asset", "dlt"), f"{what} ÷ dlt merging by catalog", 0.7),
        (
            ("catalogs", "asset"),
            f"{engine}, 200 catalogs in one run ÷ one table of their rows",
            3.0,
        ),
    ):
        cpu = itemgetter("cpu_seconds")
        yield measured.row("tables", generation, text, pair, cpu, "s", target)


def _load(
    folder: Path, server: Mapping[str, str], engine: str, what: str, products: int
) -> dict[str, float]:
    """Load into an empty database, in a process of its own."""
    number = next(_number)
    target = str(folder / f"shop{number}.duckdb")
    if engine == "PostgreSQL":
        target = _database(server, f"shop{number}")
    arguments = [what, str(folder / _FILES[products]), target, str(folder / str(number))]
    output = run_python(["-m", "benchmarks.table_loads", *arguments])
    measured: Any = json.loads(output.splitlines()[-1])
    return dict(measured)


def _database(server: Mapping[str, str], name: str) -> str:
    """Make a database, and return its URI."""
    import psycopg2

    host, port, user, password, first = (
        server[f"DAGSTER_POSTGRES_{each}"] for each in ("HOST", "PORT", "USER", "PASSWORD", "DB")
    )
    connection = psycopg2.connect(host=host, port=port, user=user, password=password, dbname=first)
    connection.autocommit = True
    connection.cursor().execute(f"CREATE DATABASE {name}")
    connection.close()
    return f"postgresql://{user}:{quote(password, safe='')}@{host}:{port}/{name}"
