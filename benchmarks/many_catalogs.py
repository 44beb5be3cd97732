"""Many catalogs in one process: `python -m benchmarks.many_catalogs WHAT CATALOGS SOURCE`.

WHAT is `run`, a run of a range of catalogs; `twice`, another one after it, which replaces the
snapshots; or `scans`, a `scan_products` for each. The last line of the output is the measurement.
Imports and the start of Dagster are not measured.
"""

import json
import os
import resource
import sqlite3
import sys
import tempfile
import threading
import warnings
from pathlib import Path
from typing import Any

from benchmarks.source import API_KEY, WARM_UP, Source

_START, _END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
_EARLY = 50
"""After how many catalogs the memory is compared with that after all."""
_POLL_SECONDS = 0.05


def main() -> None:
    what, number, text = sys.argv[1:]
    source = Source.from_json(text)
    os.environ.update(OCTOGEN_PLATFORM_API_KEY=API_KEY, OCTOGEN_BASE_URL=source.base_url)
    catalogs = source.catalogs[: int(number)]
    with tempfile.TemporaryDirectory() as folder:
        if what == "scans":
            measured = _scans(catalogs, Path(folder))
        else:
            measured = _run(source, catalogs, Path(folder), twice=what == "twice")
        files = [path for path in Path(folder).rglob("*.parquet") if path.stem in set(catalogs)]
        if len(files) != len(catalogs):
            raise RuntimeError(f"{len(files)} files of {len(catalogs)} catalogs")
    print("\n" + json.dumps(measured))


def _scans(catalogs: list[str], folder: Path) -> dict[str, Any]:
    from octogen_dagster import ProductSearch, scan_products

    def scan(catalog: str) -> None:
        frame = scan_products(ProductSearch(catalogs=[catalog]))
        frame.sink_parquet(folder / f"{catalog}.parquet", compression="zstd", compression_level=1)

    scan(WARM_UP)
    began = _cpu_seconds()
    for catalog in catalogs:
        scan(catalog)
    return {"cpu_seconds": _cpu_seconds() - began}


def _run(source: Source, catalogs: list[str], folder: Path, *, twice: bool) -> dict[str, Any]:
    import dagster as dg

    from octogen_dagster import OctogenResource, ParquetSnapshotIOManager, build_products_asset

    warnings.simplefilter("ignore", dg.BetaWarning)
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    memory = _Memory(folder / "snapshots/products")
    products = build_products_asset(
        "products",
        partitions_def=dg.StaticPartitionsDefinition([*catalogs, WARM_UP]),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    defs = dg.Definitions(
        assets=[products],
        resources={
            "octogen": OctogenResource(concurrency=source.concurrency),
            "io_manager": ParquetSnapshotIOManager(base_dir=str(folder / "snapshots")),
        },
    )
    job = defs.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        job.execute_in_process(instance=instance, tags={_START: WARM_UP, _END: WARM_UP})
        began = _cpu_seconds()
        tags = {_START: catalogs[0], _END: catalogs[-1]}
        with memory:
            result = job.execute_in_process(instance=instance, tags=tags)
        cpu_seconds = _cpu_seconds() - began
        # Before its start the run was created, in which Dagster plans each of its partitions.
        record = instance.get_run_record_by_id(result.run_id)
        assert record
        assert record.start_time
        assert record.end_time
        seconds = record.end_time - record.start_time
        began = _cpu_seconds()
        if twice:
            job.execute_in_process(instance=instance, tags=tags)
        again_seconds = _cpu_seconds() - began
    (log,) = folder.glob(f"history/runs/{result.run_id}.db")
    with sqlite3.connect(log) as events:
        (size,) = events.execute("SELECT sum(length(event)) FROM event_logs").fetchone()
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "again_seconds": again_seconds,
        "event_bytes": size / len(catalogs),
        "early_mb": memory.early_mb,
        "late_mb": memory.late_mb,
    }


class _Memory:
    """The memory after some catalogs and after all, as a thread sees their files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.early_mb = self.late_mb = 0.0
        self._folder = folder
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            self.late_mb = _resident_mb()
            if not self.early_mb and len(list(self._folder.glob("*.parquet"))) > _EARLY:
                self.early_mb = self.late_mb  # one of the files is that of the warm-up


def _resident_mb() -> float:
    """The memory that the process has now; on other systems than Linux the most that it had."""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
