"""Starts the server and the measurements, each in a process of its own.

Imports nothing heavy: a child's peak memory cannot be told from its parent's, if that has more.
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

from benchmarks.source import Generation, Source

ROOT = Path(__file__).resolve().parents[1]
_WARM_UP = "warm-up"
_ENVIRONMENT = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


@dataclass(frozen=True)
class Measurement:
    """What one process took."""

    seconds: float
    peak_mb: float
    products: int


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        page_bytes: The mean size of a page.
    """

    base_url: str
    generation: Generation
    catalogs: Mapping[str, int]
    page_bytes: int

    def measure(
        self, contender: str, catalogs: Sequence[str] | None = None, concurrency: int = 8
    ) -> Measurement:
        """Let a contender read catalogs, by default all, in a fresh process.

        Raises:
            RuntimeError: It failed, or did not bring every product.
        """
        catalogs = list(self.catalogs if catalogs is None else catalogs)
        sources = [
            Source(self.base_url, self.generation, keys, concurrency)
            for keys in ([_WARM_UP], catalogs)
        ]
        command = ["-m", "benchmarks.child", contender, *(source.to_json() for source in sources)]
        measurement = Measurement(**json.loads(run_python(command).splitlines()[-1]))
        expected = sum(self.catalogs[key] for key in catalogs)
        if measurement.products != expected:
            raise RuntimeError(f"{contender} read {measurement.products} products of {expected}")
        return measurement

    def pages_served(self) -> int:
        """Pages answered so far, whoever asked."""
        with urllib.request.urlopen(f"{self.base_url}/pages-served", timeout=10) as answer:
            return int(answer.read())


@contextmanager
def server(
    generation: Generation, catalogs: Mapping[str, int], delay: float = 0.0, listed: int = 0
) -> Iterator[Server]:
    """A server of these catalogs (keys and numbers of products).

    Args:
        delay: Seconds it waits before each answer.
        listed: How many further catalogs it lists, without products.
    """
    settings = {
        "generation": generation,
        "catalogs": {**catalogs, _WARM_UP: 100},
        "delay": delay,
        "listed": listed,
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
    """The wall time of a fresh interpreter that runs `code` in the project's root."""
    began = time.perf_counter()
    run_python(["-c", code])
    return time.perf_counter() - began


def run_python(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """What a fresh interpreter prints.

    Args:
        arguments: Of the interpreter, which runs in the project's root.
        environment: Variables to add to those there are.

    Raises:
        RuntimeError: It failed.
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
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
