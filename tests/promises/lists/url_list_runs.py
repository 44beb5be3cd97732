"""Runs of an asset of a URL list, also in a process of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

import octogen_dagster as od

SHOP = "https://shop.example"


def articles_of(table: pl.DataFrame | Sequence[str | None]) -> dg.AssetsDefinition:
    """An own table, or one with these addresses."""
    if not isinstance(table, pl.DataFrame):
        schema = {"sku": pl.String, "url": pl.String}
        rows = [(f"sku{place}", url) for place, url in enumerate(table)]
        table = pl.DataFrame(rows, schema=schema, orient="row")

    @dg.asset(io_manager_key="own_io_manager")
    def articles() -> pl.DataFrame:
        return table

    return articles


def materialize_list(
    table: pl.DataFrame | Sequence[str | None],
    resources: Mapping[str, Any],
    instance: dg.DagsterInstance | None = None,
    config: Mapping[str, Any] | None = None,
    *,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN,
    **arguments: Any,
) -> dg.ExecuteInProcessResult:
    """Materialize a table and the list of its addresses, with its check."""
    articles = articles_of(table)
    url_list = od.build_url_list_asset("competitors", articles, **arguments)
    checks = od.build_url_list_checks(url_list, severity=severity)
    return dg.materialize(
        [articles, url_list, *checks],
        resources={"own_io_manager": dg.mem_io_manager, **resources},
        instance=instance,
        run_config={"ops": {"competitors": {"config": dict(config or {})}}},
        raise_on_error=False,
    )


def run_in_process(table: Sequence[str], base_url: str, api_key: str, folder: str) -> None:
    """Bring the list to a table."""
    octogen = od.OctogenResource(api_key=api_key, base_url=base_url)
    resources = {"octogen": octogen, "io_manager": od.ParquetSnapshotIOManager(base_dir=folder)}
    assert materialize_list(table, resources, retry_policy=None).success


dg.DagsterInstance.ephemeral().dispose()
