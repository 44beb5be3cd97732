"""The circumstances of a measurement: the machine, the versions and the size of a page."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from datetime import datetime, timezone

from benchmarks.processes import server
from benchmarks.source import PAGE_SIZE, Generation

_PACKAGES = (
    "octogen-dagster",
    "polars",
    "httpx",
    "pycurl",
    "msgspec",
    "dagster",
    "dlt",
    "octogen-ai-sdk",
)


def circumstances(generations: Sequence[Generation]) -> list[str]:
    """Return the circumstances as lines of Markdown."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
    sizes = [f"{_page_bytes(generation):,} bytes ({generation})" for generation in generations]
    return [
        f"* {datetime.now(timezone.utc):%Y-%m-%d}, {platform.system()} {platform.machine()}, "
        f"{_cpu()}, {os.cpu_count()} cores, {memory:.0f} GiB",
        f"* {', '.join(versions)}",
        f"* A page of {PAGE_SIZE} products: {', '.join(sizes)}",
    ]


def _page_bytes(generation: Generation) -> int:
    with server(generation, {"grand-arcade": 100_000}) as local:
        return local.page_bytes


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"
