"""Readers of the result of an in-process run."""

from typing import Any

import dagster as dg


def metadata(result: dg.ExecuteInProcessResult, node: str) -> dict[str, Any]:
    """Return the metadata of an asset's only materialization."""
    (event,) = result.asset_materializations_for_node(node)
    return {name: entry.value for name, entry in event.metadata.items()}


def failure(result: dg.ExecuteInProcessResult) -> str:
    """Return the error of the only failed step, with its cause."""
    (event,) = [event for event in result.all_events if event.is_step_failure]
    error = event.step_failure_data.error
    assert error
    return f"{error.message}\n{error.cause.message}" if error.cause else error.message
