"""Reads of a server, runs in this process whose snapshots are in a folder, and their results."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import dagster as dg
import polars as pl

import octogen_dagster as od


class Server(Protocol):
    """A service of a test."""

    @property
    def base_url(self) -> str: ...

    @property
    def api_key(self) -> str: ...


def octogen_at(server: Server, **settings: Any) -> od.OctogenResource:
    """Return the resource of a server."""
    settings = {"catalog_source": od.GrantedCatalogs(), **settings}
    return od.OctogenResource(api_key=server.api_key, base_url=server.base_url, **settings)


def scan(server: Server, search: od.ProductSearch | None = None, **settings: Any) -> pl.LazyFrame:
    """Return the products of a search, of all products by default; it is not read yet."""
    return od.scan_products(
        search or od.ProductSearch(), api_key=server.api_key, base_url=server.base_url, **settings
    )


def stored(folder: Path, octogen: od.OctogenResource | None = None) -> dict[str, Any]:
    """Return the resources of runs whose snapshots are in a folder."""
    io_manager = od.ParquetSnapshotIOManager(base_dir=str(folder))
    return {"io_manager": io_manager} | ({"octogen": octogen} if octogen else {})


def materialized(
    assets: Sequence[Any],
    folder: Path,
    octogen: od.OctogenResource | None = None,
    resources: Mapping[str, Any] | None = None,
    **options: Any,
) -> dg.ExecuteInProcessResult:
    """Materialize assets into a folder; `options` are those of `dagster.materialize`."""
    given = {**stored(folder, octogen), **(resources or {})}
    return dg.materialize(assets, resources=given, **options)


def of_range(first: str, last: str) -> dict[str, str]:
    """Return the tags of a run that has the partitions from the first to the last one."""
    name = "dagster/asset_partition_range"
    return {f"{name}_start": first, f"{name}_end": last}


def metadata(result: dg.ExecuteInProcessResult, node: str) -> dict[str, Any]:
    """Return the metadata of an asset's only materialization."""
    (event,) = result.asset_materializations_for_node(node)
    return {name: entry.value for name, entry in event.metadata.items()}


def figures(result: dg.ExecuteInProcessResult, node: str) -> dict[str, Any]:
    """Return the metadata of an asset's only materialization, with the figures that are one entry.

    The names have no prefix `octogen/`.
    """
    shown = metadata(result, node)
    entries = {name.removeprefix("octogen/"): value for name, value in shown.items()}
    return {**entries, **entries.pop("metrics", {})}


def failure(result: dg.ExecuteInProcessResult | dg.JobExecutionResult) -> str:
    """Return the error of the only failed step, with its cause."""
    (error,) = failures(result)
    return error


def failures(result: dg.ExecuteInProcessResult | dg.JobExecutionResult) -> list[str]:
    """Return the errors of the failed steps, with their causes."""
    errors = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    return [
        f"{error.message}\n{error.cause.message}" if error.cause else error.message
        for error in errors
        if error
    ]


def is_retried(result: dg.ExecuteInProcessResult) -> bool:
    """Return whether a step of a run was tried again."""
    return any(event.is_step_up_for_retry for event in result.all_events)


def warnings(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> list[str]:
    """Return the warnings in the log of a run."""
    records = instance.all_logs(result.run_id)
    return [each.user_message for each in records if each.level == logging.WARNING]


def cells(table: str) -> list[list[str]]:
    """The cells of a Markdown table, its header first."""
    lines = [line for line in table.splitlines() if not line.startswith("| ---")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
