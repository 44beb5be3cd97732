"""The floor: an asset that does nothing, with Dagster alone."""

import dagster as dg


@dg.asset
def nothing() -> None:
    """Do nothing."""


defs = dg.Definitions(assets=[nothing], executor=dg.in_process_executor)
