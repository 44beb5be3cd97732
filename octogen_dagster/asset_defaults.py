"""The decorator of every asset, and what the assets of both wings have in common.

Importing it also tells Dagster the version of this package, which Dagster reports with its own.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
from dagster_shared.libraries import DagsterLibraryRegistry

from octogen_dagster import __version__

DagsterLibraryRegistry.register("octogen-dagster", __version__, is_dagster_package=False)

RESOURCE = "octogen"
"""The key of the `OctogenResource`."""

POOL = "octogen"
GROUP = "octogen"

ACCEPT_SHRINKING = "accept_shrinking"
ACCEPT_SHRINKING_CONFIG = dg.Field(
    bool,
    default_value=False,
    is_required=False,
    description="True to publish this run's snapshot of whole catalogs however few rows it has.",
)

Metadata = dict[str, dg.MetadataValue[Any] | dg.TableSchema | str | int | float]


def octogen_asset(
    own: Mapping[str, Any], given: Mapping[str, Any]
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Return `@dagster.asset` with this project's defaults.

    Args:
        own: Arguments that the asset's factory sets.
        given: Arguments that the user passed; they override all others. `execute`, if it is there,
            is called in place of the asset's function, with the context and a function without
            arguments that calls the asset's.
    """
    defaults = {"group_name": GROUP, "pool": POOL, "kinds": {"octogen", "polars", "parquet"}}
    arguments = {**defaults, **own, **given}
    execute = arguments.pop("execute", None)
    decorator: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.asset(**arguments)
    return decorator if execute is None else lambda asset: decorator(_executed(asset, execute))


def _executed(asset: Callable[..., Any], execute: Callable[..., Any]) -> Callable[..., Any]:
    """Return an asset's function, with the signature that Dagster reads, run by `execute`."""

    @functools.wraps(asset)
    def compute(*args: Any, **arguments: Any) -> Any:
        return execute(dg.AssetExecutionContext.get(), lambda: asset(*args, **arguments))

    return compute


def asset_key(name: str, given: Mapping[str, Any]) -> dg.AssetKey:
    """The key of an asset.

    Args:
        name: The asset's name.
        given: Arguments that the user passed, with or without `key_prefix`.
    """
    prefix = given.get("key_prefix") or []
    return dg.AssetKey([*([prefix] if isinstance(prefix, str) else prefix), name])
