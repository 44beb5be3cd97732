"""Runs of the assets of a URL list's export, and those that tests kill.

A fork server imports this module, so a run imports nothing itself.
"""

from __future__ import annotations

import os
from typing import Any

import dagster as dg
import polars as pl

import octogen_dagster as od
from octogen_dagster.api import blocking  # noqa: F401

PROJECT = "reader-project"
LIST_ID = "cul_01"
SHOP = "https://shop.example"


def own_table() -> pl.DataFrame:
    """The table of the list. Polars' threads do not survive a fork, so it is made in a run."""
    rows = [
        ("A1", 90.0, "Own boot", "/products/boot?utm_source=x"),
        ("A2", 45.0, "Own sock", "/products/boot"),
        ("B", 20.0, "Own hat", "/collections/new/products/hat"),
        ("C", 10.0, "Own cap", "/products/cap?color=red"),
        ("D", 5.0, "Own pen", "/products/pen"),
        ("E", 1.0, "Own ink", "/products/ink"),
    ]
    return pl.DataFrame(
        [
            *(
                (sku, price, title, f"{SHOP}{path}", f"{SHOP}{path}".partition("?utm_")[0])
                for sku, price, title, path in rows
            ),
            ("F", 1.0, "Own fig", "nonsense", None),
        ],
        schema=["sku", "price", "title", "url", "normalized_url"],
        orient="row",
    ).with_columns(
        rejected_code=pl.when(pl.col("normalized_url").is_null()).then(pl.lit("invalid_url")),
        rejected_message=pl.when(pl.col("normalized_url").is_null()).then(pl.lit("It is none.")),
    )


@dg.asset(metadata={"octogen/url_list": "q3"})
def q3() -> dg.MaterializeResult[pl.DataFrame]:
    return dg.MaterializeResult(value=own_table(), metadata={"octogen/url_list_id": LIST_ID})


def chain(
    url_list: dg.AssetsDefinition = q3,
    *,
    export: dict[str, Any] | None = None,
    snapshots: dict[str, Any] | None = None,
    offers: dict[str, Any] | None = None,
    matches: dict[str, Any] | None = None,
    **arguments: Any,
) -> list[dg.AssetsDefinition]:
    """The export of a list, the snapshots of its views and the matches, with these arguments."""
    name = url_list.key.path[-1]
    exported = od.build_url_list_export_asset(url_list, **arguments | (export or {}))
    snapshots = arguments | (snapshots or {})
    coverage = od.build_linked_snapshot_asset(
        exported, name=f"{name}_coverage", view="url_coverage_v1", **snapshots
    )
    products = od.build_linked_snapshot_asset(
        exported, name=f"{name}_offers", **snapshots | (offers or {})
    )
    matched = od.build_url_matches_asset(
        url_list, coverage, products, **arguments | (matches or {})
    )
    return [exported, coverage, products, matched]


def make_job() -> dg.JobDefinition:
    defs = dg.Definitions(
        [q3, *chain(retry_policy=None)],
        jobs=[dg.define_asset_job("list_job", executor_def=dg.in_process_executor)],
        resources={
            "octogen": od.OctogenResource(),
            "analytics_hub": od.AnalyticsHubResource(project=PROJECT),
            "bigquery": od.AnalyticsHubResource(project=PROJECT),
            "io_manager": od.ParquetSnapshotIOManager(base_dir=dg.EnvVar("STORED")),
        },
    )
    return defs.resolve_job_def("list_job")


def execute(folder: str, environment: dict[str, str]) -> None:
    """Execute the job, or what is left of a run that was killed, by an instance in a folder."""
    os.environ.update(environment)
    job = dg.reconstructable(make_job)
    with dg.DagsterInstance.local_temp(folder) as instance:
        options = None
        for killed in instance.get_runs():
            instance.report_run_failed(killed)
            options = dg.ReexecutionOptions.from_failure(killed.run_id, instance)
        assert dg.execute_job(job, instance=instance, reexecution_options=options).success


dg.DagsterInstance.ephemeral().dispose()
