"""A job whose run has a range of catalogs. Tests execute it in processes, and kill some."""

import os
import warnings
from collections.abc import Mapping

import dagster as dg

import octogen_dagster as od
from tests.results import of_range

CATALOGS = [f"shop{number}" for number in range(8)]
PAGE_SIZE = 5
RANGE = of_range(CATALOGS[0], CATALOGS[-1])
BASE_URL, API_KEY, BASE_DIR = "RANGE_URL", "RANGE_KEY", "RANGE_DIR"


def single_run() -> dg.BackfillPolicy:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.BackfillPolicy.single_run()


def make_job(budget_usd: float) -> dg.JobDefinition:
    """Make the job; the settings come from the environment."""
    products = od.build_products_asset(
        "products",
        od.ProductSearch(page_size=PAGE_SIZE),
        dg.StaticPartitionsDefinition(CATALOGS),
        backfill_policy=single_run(),
    )
    return _job(products, budget_usd)


def make_own_job(budget_usd: float) -> dg.JobDefinition:
    """Make a job of an asset of one's own, which returns a dict of scans."""

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(CATALOGS), backfill_policy=single_run())
    def products(
        context: dg.AssetExecutionContext, octogen: od.OctogenResource
    ) -> dict[str, od.ProductScan]:
        return {
            key: octogen.scan(od.ProductSearch(catalogs=[key], page_size=PAGE_SIZE))
            for key in context.partition_keys
        }

    return _job(products, budget_usd)


def _job(products: dg.AssetsDefinition, budget_usd: float) -> dg.JobDefinition:
    octogen = od.OctogenResource(
        api_key=os.environ[API_KEY],
        base_url=os.environ[BASE_URL],
        concurrency=3,
        attempts=1,
        budget_usd=budget_usd,
    )
    resources = {
        "octogen": octogen,
        "io_manager": od.ParquetSnapshotIOManager(base_dir=os.environ[BASE_DIR]),
    }
    return dg.Definitions(
        assets=[products],
        jobs=[dg.define_asset_job("job")],
        resources=resources,
        executor=dg.in_process_executor,
    ).resolve_job_def("job")


def settings() -> dict[str, str]:
    """The settings of the job, for `execute`."""
    return {name: os.environ[name] for name in (BASE_URL, API_KEY, BASE_DIR)}


def execute(
    home: str, environment: Mapping[str, str], parent: str | None = None, *, is_own: bool = False
) -> None:
    """Execute the job in a process of its own, or again after a run that did not succeed."""
    os.environ.update(environment)  # a process that is forked from a server has the server's
    with dg.DagsterInstance.local_temp(home) as instance:
        run(instance, parent, is_own=is_own)


def run(
    instance: dg.DagsterInstance,
    parent: str | None = None,
    budget_usd: float = 100.0,
    *,
    is_own: bool = False,
) -> dg.JobExecutionResult:
    """Execute the job in this process, with the tags that a re-execution inherits."""
    options = None
    tags: Mapping[str, str] = RANGE
    if parent:
        before = instance.get_run_by_id(parent)
        assert before
        tags = before.tags
        options = dg.ReexecutionOptions(parent_run_id=parent)
    return dg.execute_job(
        dg.build_reconstructable_job(
            __name__, (make_own_job if is_own else make_job).__name__, (budget_usd,)
        ),
        instance=instance,
        tags=tags,
        raise_on_error=False,
        reexecution_options=options,
    )
