"""The decorator of every asset, and what the assets of both wings have in common.

Importing it also tells Dagster the version of this package, which Dagster reports with its own.
"""

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
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

    The asset's code reference is the line that calls the factory.

    Args:
        own: Arguments that the asset's factory sets.
        given: Arguments that the user passed; they override all others, and metadata is added.
            `execute`, if it is there, is called in place of the asset's function, with the context
            and a function without arguments that calls the asset's.

    Raises:
        ValueError: The asset has partitions and a backfill policy.
    """
    defaults = {"group_name": GROUP, "pool": POOL, "kinds": {"octogen", "polars", "parquet"}}
    metadata = {
        **_code_reference(),
        **(own.get("metadata") or {}),
        **(given.get("metadata") or {}),
    }
    arguments = {**defaults, **own, **given, "metadata": metadata}
    _check_backfill_policy(arguments)
    execute = arguments.pop("execute", None)
    decorator: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.asset(**arguments)
    return decorator if execute is None else lambda asset: decorator(_executed(asset, execute))


def _check_backfill_policy(arguments: Mapping[str, Any]) -> None:
    if arguments.get("backfill_policy") and arguments.get("partitions_def"):
        raise ValueError(  # also for multi_run(1): Dagster gives such a run a range of one
            f"Asset {arguments['name']!r} takes one partition in each run, and a run by a "
            "backfill_policy has a range of them. Leave backfill_policy out: a backfill then "
            "requests a run for each partition."
        )


def _executed(asset: Callable[..., Any], execute: Callable[..., Any]) -> Callable[..., Any]:
    """Return an asset's function, with the signature that Dagster reads, run by `execute`."""

    @functools.wraps(asset)
    def compute(*args: Any, **arguments: Any) -> Any:
        return execute(dg.AssetExecutionContext.get(), lambda: asset(*args, **arguments))

    @functools.wraps(asset)
    def generate(*args: Any, **arguments: Any) -> Any:
        yield from compute(*args, **arguments)

    # Dagster reads the outputs of a generator otherwise than those of a function.
    return generate if inspect.isgeneratorfunction(asset) else compute


def _code_reference() -> Metadata:
    """Return the place in the user's code that calls this package; empty if there is none.

    An asset that Dagster itself builds, as from a YAML file, has none here.
    """
    frame = inspect.currentframe()
    while frame and _package(frame) == __package__:
        frame = frame.f_back
    if frame is None or _package(frame) == dg.__name__:
        return {}
    path = Path(frame.f_code.co_filename)
    if not path.is_file():  # a notebook or a prompt
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        place = dg.LocalFileCodeReference(file_path=str(path.resolve()), line_number=frame.f_lineno)
        references = dg.CodeReferencesMetadataValue(code_references=[place])
    return {"dagster/code_references": references}


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def asset_key(name: str, given: Mapping[str, Any]) -> dg.AssetKey:
    """The key of an asset.

    Args:
        name: The asset's name.
        given: Arguments that the user passed, with or without `key_prefix`.
    """
    prefix = given.get("key_prefix") or []
    return dg.AssetKey([*([prefix] if isinstance(prefix, str) else prefix), name])
