"""The server and the measurements, each in a process of its own.

This module imports nothing heavy: the peak memory of a child includes that of its parent at the
time of the fork.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.source import PAGE_SIZE, WARM_UP, Generation, Source

ROOT = Path(__file__).resolve().parents[1]
_ENVIRONMENT = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


@dataclass(frozen=True)
class Measurement:
    """One read in one process.

    Attributes:
        seconds: The wall time.
        cpu_seconds: The CPU time of all threads.
        start_seconds: The wall time of a read of one page.
        start_cpu_seconds: The CPU time of a read of one page.
        peak_mb: The peak memory of the process, in units of 10^6 bytes.
        products: The number of distinct products.
        digest: A digest of the rows; None if the contender has other columns than a snapshot.
    """

    seconds: float
    cpu_seconds: float
    start_seconds: float
    start_cpu_seconds: float
    peak_mb: float
    products: int
    digest: int | None = None

    @property
    def reading_seconds(self) -> float:
        """The wall time without what a read of one page takes."""
        return self.seconds - self.start_seconds

    @property
    def reading_cpu_seconds(self) -> float:
        """The CPU time without what a read of one page takes."""
        return self.cpu_seconds - self.start_cpu_seconds


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        base_url: The base URL.
        generation: The contract.
        catalogs: Catalog key to number of products.
        page_bytes: The mean size of a page of each catalog, in bytes.
    """

    base_url: str
    generation: Generation
    catalogs: Mapping[str, int]
    page_bytes: Mapping[str, int]

    def measure(
        self,
        contender: str,
        catalogs: Sequence[str] | None = None,
        concurrency: int = 8,
    ) -> Measurement:
        """Let a contender read catalogs in a new process, and return the measurement.

        Args:
            contender: The name of its module.
            catalogs: The catalogs to read; None for all.
            concurrency: The number of catalogs to read at the same time.

        Raises:
            RuntimeError: The contender failed, or did not read every product.
        """
        catalogs = list(self.catalogs if catalogs is None else catalogs)
        sources = [
            Source(self.base_url, self.generation, keys, concurrency)
            for keys in ([WARM_UP], catalogs)
        ]
        command = ["-m", "benchmarks.child", contender, *(source.to_json() for source in sources)]
        output = run_python(command)
        measurement = Measurement(**json.loads(output.splitlines()[-1]))
        expected = sum(self.catalogs[key] for key in catalogs)
        if measurement.products != expected:
            raise RuntimeError(f"{contender} read {measurement.products} products of {expected}")
        return measurement

    def pages_served(self) -> int:
        """Return the number of pages that all clients have read so far."""
        return self.counts()["pages"]

    def counts(self) -> dict[str, int]:
        """Return how many pages, lookups and refusals there were, without refusals of warm-ups."""
        with urllib.request.urlopen(f"{self.base_url}/counts", timeout=10) as response:
            counts: dict[str, int] = json.load(response)
        return counts


@contextmanager
def server(
    generation: Generation,
    catalogs: Mapping[str, int],
    delay: float = 0.0,
    *,
    shapes: Mapping[str, str] | None = None,
    listed: int = 0,
    lookups: bool = False,
) -> Iterator[Server]:
    """Run a server.

    Args:
        generation: The contract.
        catalogs: Catalog key to number of products.
        delay: The time to wait before each response, in seconds.
        shapes: Catalog key to the name of the shape of its pages; plain by default.
        listed: The number of additional catalogs, which are listed and have no pages.
        lookups: True if the products of the first catalog can be looked up.
    """
    shapes = shapes or {}
    settings = {
        "generation": generation,
        "catalogs": {
            key: (products, shapes.get(key, "plain"))
            for key, products in {**catalogs, WARM_UP: PAGE_SIZE}.items()
        },
        "delay": delay,
        "listed": listed,
        "lookups": lookups,
    }
    command = [sys.executable, "-m", "benchmarks.server", json.dumps(settings)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            where = json.loads(process.stdout.readline())
            base_url = f"http://127.0.0.1:{where['port']}/v1"
            yield Server(base_url, generation, catalogs, where["page_bytes"])
        finally:
            process.stdin.close()


def wall_seconds(code: str) -> float:
    """Return the wall time of a new interpreter that runs `code` in the project's root."""
    started_at = time.perf_counter()
    run_python(["-c", code])
    return time.perf_counter() - started_at


def run_python(
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a new interpreter, and return what it prints.

    Args:
        arguments: The arguments of the interpreter.
        environment: Environment variables to add.

    Raises:
        RuntimeError: The interpreter failed.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**_ENVIRONMENT, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(arguments)} failed ({done.returncode}):\n{done.stdout}{done.stderr}"
        )
    return done.stdout
