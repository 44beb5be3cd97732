"""Runs of a URL list's asset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

import octogen_dagster as od


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
