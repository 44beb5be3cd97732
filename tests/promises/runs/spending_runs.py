"""A job whose steps are processes of their own. They import this module."""

import os

import dagster as dg

import octogen_dagster as od

BASE_DIR = "SPENDING_RUNS_BASE_DIR"
BUDGET_USD = "SPENDING_RUNS_BUDGET_USD"


def make_job() -> dg.JobDefinition:
    """Make the job; the settings come from the environment."""
    products = od.build_products_asset("products", od.ProductSearch(catalogs=["northpeak"]))
    details = od.build_product_details_asset(
        products, name="details", retry_policy=dg.RetryPolicy()
    )
    return dg.Definitions(
        assets=[products, details],
        jobs=[dg.define_asset_job("both")],
        resources={
            "octogen": od.OctogenResource(budget_usd=float(os.environ[BUDGET_USD])),
            "io_manager": od.ParquetSnapshotIOManager(base_dir=os.environ[BASE_DIR]),
        },
        executor=dg.multiprocess_executor.configured({"max_concurrent": 1}),
    ).resolve_job_def("both")
