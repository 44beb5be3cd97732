"""The circumstances of a measurement: the machine and the versions."""

import importlib.metadata
import os
import platform
from datetime import UTC, datetime

_PACKAGES = (
    "octogen-dagster",
    "polars",
    "pyarrow",
    "pycurl",
    "httpx",
    "urllib3",
    "msgspec",
    "dagster",
    "dlt",
    "duckdb",
    "octogen-ai-sdk",
)


def circumstances() -> list[str]:
    """Return lines of Markdown; packages that are not installed are left out."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    installed = {each.metadata["Name"]: each.version for each in importlib.metadata.distributions()}
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {installed[name]}" for name in _PACKAGES if name in installed]
    return [
        f"* {datetime.now(UTC):%Y-%m-%d}, {platform.system()} {platform.machine()}, "
        f"{_cpu()}, {os.cpu_count()} cores, {memory:.0f} GiB",
        f"* {', '.join(versions)}",
    ]


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"
