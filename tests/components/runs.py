"""Runs of the assets of a component, and the files that they leave."""

from __future__ import annotations

from pathlib import Path

import dagster as dg


def run(
    defs: dg.Definitions, instance: dg.DagsterInstance, *keys: str, partition: str | None = None
) -> dg.ExecuteInProcessResult:
    """Materialize assets, with their checks."""
    return defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey.from_user_string(key) for key in keys],
        partition_key=partition,
    )


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet")}
