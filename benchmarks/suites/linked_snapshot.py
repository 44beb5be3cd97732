"""The peak memory of a snapshot of a linked view, read from the BigQuery emulator."""

import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from benchmarks.measure import Row, run_rounds, say
from benchmarks.processes import run_python
from benchmarks.source import Generation
from tests.servers.bigquery import ENVIRONMENT, running_emulator

_LARGE, _SMALL = 1_000_000, 100_000
_REST_LARGE, _REST_SMALL = 200_000, 20_000  # the emulator takes seconds for a page
_MAX_ROUNDS = 3


def run(generations: Sequence[Generation], rounds: int, _before: Path | None) -> Iterator[Row]:
    """Compare the peaks at ten times the rows, by both APIs of BigQuery."""
    del generations  # a view has one
    if not ENVIRONMENT:
        say("  left out: it needs the BigQuery emulator, see tests/servers/bigquery_emulator.sh")
        return
    port = _free_port()
    storage = f"127.0.0.1:{port}"
    with (
        tempfile.TemporaryDirectory() as folder,
        running_emulator(Path(folder), grpc_port=port) as rest,
    ):
        contenders = {
            "large": partial(_peak_mb, rest, storage, _LARGE),
            "small": partial(_peak_mb, rest, storage, _SMALL),
            "REST large": partial(_peak_mb, rest, "", _REST_LARGE),
            "REST small": partial(_peak_mb, rest, "", _REST_SMALL),
        }
        measured = run_rounds(contenders, min(rounds, _MAX_ROUNDS))
    for what, pair in (
        (f"peak memory at {_LARGE:,} rows ÷ at {_SMALL:,}", ("large", "small")),
        (
            f"peak memory at {_REST_LARGE:,} rows over REST ÷ at {_REST_SMALL:,}",
            ("REST large", "REST small"),
        ),
    ):
        yield measured.row("linked_snapshot", "", what, pair, lambda peak: peak, "MB", 1.25)


def _peak_mb(rest: str, storage: str, rows: int) -> float:
    output = run_python(["-m", "benchmarks.linked_rows", rest, storage, str(rows)])
    return float(output.splitlines()[-1])


def _free_port() -> int:
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port
