"""The asset decorator, with its defaults, retries and cancellation.

Importing this module registers the package's version with Dagster.
"""

import functools
import inspect
import multiprocessing
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_shared.libraries import DagsterLibraryRegistry

from octogen_dagster import __version__
from octogen_dagster.errors import (
    MissingAPIKeyError,
    OctogenError,
    OctogenInsufficientCreditError,
    Persistence,
    dagster_private,
)
from octogen_dagster.validation import checked_name

DagsterLibraryRegistry.register("octogen-dagster", __version__, is_dagster_package=False)

RESOURCE = "octogen"
"""The `OctogenResource`'s key."""

RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
"""Run tags with the range of partitions."""

POOL = "octogen"
GROUP = "octogen"

RETRY_POLICY = dg.RetryPolicy(max_retries=3, delay=10, backoff=dg.Backoff.EXPONENTIAL)
"""Three retries, after 10, 30 and 70 seconds: Dagster multiplies the delay by 2**n - 1."""

ACCEPT_SHRINKING = "accept_shrinking"
ACCEPT_SHRINKING_CONFIG = dg.Field(
    bool,
    default_value=False,
    is_required=False,
    description="If true, this run publishes a snapshot of whole catalogs even if the snapshot has "
    "far fewer rows than the previous snapshot.",
)

FRESH = "fresh"

_KIND = "dagster/kind/"
"""Prefix for kind tags."""
_IO_MANAGER_KEY = "dagster/io_manager_key"
"""The metadata key that `AssetSpec.with_io_manager_key` sets."""

Metadata = dict[str, dg.MetadataValue[Any] | dg.TableSchema | str | int | float]


_BUILDERS = {
    "alerts": "build_price_alerts_asset",
    "coverage": "build_linked_snapshot_asset",
    "offers": "build_linked_snapshot_asset",
    "histories": "build_product_history_asset",
    "history": "build_product_history_asset",
    "linked_datasets": "build_linked_datasets_asset",
    "price_list": "build_history_asset",
    "url_list": "build_url_list_asset",
}
"""The builder that an error message suggests for each argument.

For any other argument, the message suggests `build_products_asset`.
"""


def require_asset(asset: object, argument: str) -> None:
    """Raise a TypeError unless `asset` is an asset definition."""
    if not isinstance(asset, dg.AssetsDefinition):
        builder = _BUILDERS.get(argument, "build_products_asset")
        text = f"Pass an asset built by a builder such as {builder}."
        if isinstance(asset, dg.AssetKey):
            text += (
                " If the asset is defined in a YAML file, pass "
                "context.build_defs(FOLDER).get_assets_def(KEY) in a function decorated with "
                "@dagster.definitions."
            )
        raise TypeError(f"{argument} must be an asset; got {type(asset).__name__}. {text}")


def asset_arguments_of(name: str | dg.AssetSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """Combine an asset's name or spec with the user's other arguments for `@dagster.asset`.

    Attributes that the spec does not set are omitted, so that the builder's defaults apply.
    """
    if isinstance(name, str):
        return {"name": checked_name(name, f"Asset {name!r}: "), **given}
    if not isinstance(name, dg.AssetSpec):
        raise TypeError(
            f"name must be the asset's name or a dagster.AssetSpec; got {type(name).__name__}. "
            "Pass a name, such as 'boots', as the first argument."
        )
    of_spec = {
        "description": name.description,
        "group_name": name.group_name,
        "code_version": name.code_version,
        "automation_condition": name.automation_condition,
        "freshness_policy": name.freshness_policy,
        "partitions_def": name.partitions_def,
        "owners": name.owners,
        "kinds": name.kinds,
        "tags": {tag: value for tag, value in name.tags.items() if not tag.startswith(_KIND)},
        "key_prefix": list(name.key.path[:-1]),
        "io_manager_key": name.metadata.get(_IO_MANAGER_KEY),
    }
    metadata = {key: value for key, value in name.metadata.items() if key != _IO_MANAGER_KEY}
    return {
        "name": name.key.path[-1],
        **{argument: value for argument, value in of_spec.items() if value},
        **given,
        "metadata": {**metadata, **(given.get("metadata") or {})},
        "deps": [*name.deps, *(given.get("deps") or ())],
    }


def takes_range(
    backfill_policy: dg.BackfillPolicy | None, partitions_def: dg.PartitionsDefinition[Any] | None
) -> bool:
    """Return True if a run can materialize a range of partitions."""
    return bool(backfill_policy and partitions_def)


def octogen_asset(
    own: Mapping[str, Any], given: Mapping[str, Any], *, takes_ranges: bool = False
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Return `@dagster.asset` with this project's defaults.

    The asset's code reference is the line that calls the builder. `own` contains the builder's
    arguments, and `given` contains the user's arguments from `asset_arguments_of`. The user's
    metadata, dependencies, resources and checks are added to the builder's. Any other argument
    overrides the builder's. The argument `execute` is called instead of the asset's function.
    `execute` receives the context and a function that calls the asset's function. A backfill policy
    is rejected unless `takes_ranges` is true.
    """
    defaults = {"group_name": GROUP, "pool": POOL, "kinds": {"octogen", "polars", "parquet"}}
    arguments = {**defaults, **own, **given}
    for name in ("metadata", "resource_defs"):
        arguments[name] = {**(own.get(name) or {}), **(given.get(name) or {})}
    for name in ("deps", "required_resource_keys", "check_specs"):
        arguments[name] = [*(own.get(name) or ()), *(given.get(name) or ())]
    arguments["required_resource_keys"] = {*arguments["required_resource_keys"]}
    arguments["metadata"] = {**_code_reference(), **arguments["metadata"]}
    has_range = takes_range(arguments.get("backfill_policy"), arguments.get("partitions_def"))
    if has_range and not takes_ranges:
        raise ValueError(  # also for multi_run(1): Dagster gives such a run a range of one
            f"Asset {arguments['name']!r} supports one partition per run and cannot have a "
            "backfill_policy. Remove backfill_policy; a backfill then requests one run per "
            "partition."
        )
    execute = arguments.pop("execute", None) or (lambda _context, compute: compute())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # already shown for the backfill policy
        decorator: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.asset(**arguments)
    return lambda asset: decorator(_executed(asset, execute))


def _executed(asset: Callable[..., Any], execute: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls `execute` and has the signature of the asset's function."""

    @functools.wraps(asset)
    def compute(*args: Any, **arguments: Any) -> Any:
        context = dg.AssetExecutionContext.get()
        with canceling_ends(context.instance, context.run.run_id):
            return execute(context, lambda: asset(*args, **arguments))

    @functools.wraps(asset)
    def generate(*args: Any, **arguments: Any) -> Any:
        context = dg.AssetExecutionContext.get()
        with canceling_ends(context.instance, context.run.run_id):
            yield from execute(context, lambda: asset(*args, **arguments))

    # Dagster handles outputs from generators differently.
    return generate if inspect.isgeneratorfunction(asset) else compute


def _code_reference() -> Metadata:
    """Return a code reference to the line of user code that calls this package.

    Return an empty dict if user code does not call this package.
    """
    frame, own = inspect.currentframe(), __name__.partition(".")[0]
    while frame and (package := str(frame.f_globals.get("__name__")).partition(".")[0]) == own:
        frame = frame.f_back
    if frame is None or package == dg.__name__:  # built by Dagster, as from a YAML file
        return {}
    path = Path(frame.f_code.co_filename)
    if not path.is_file():  # a notebook or a prompt
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        place = dg.LocalFileCodeReference(file_path=str(path.resolve()), line_number=frame.f_lineno)
        references = dg.CodeReferencesMetadataValue(code_references=[place])
    return {"dagster/code_references": references}


def asset_key(arguments: Mapping[str, Any]) -> dg.AssetKey:
    """Return the asset key that the arguments for `@dagster.asset` define."""
    prefix = arguments.get("key_prefix") or []
    return dg.AssetKey([*([prefix] if isinstance(prefix, str) else prefix), arguments["name"]])


def io_manager_key(asset: dg.AssetsDefinition) -> str:
    key: str = dagster_private(asset, "get_io_manager_key_for_asset_key")(asset.key)
    return key


def output_manager(context: dg.AssetExecutionContext) -> tuple[str, Any]:
    """Return a pair: the key of the asset's IO manager, and the IO manager."""
    key = io_manager_key(context.assets_def)
    return key, getattr(context.resources, key)


def keeps_snapshots(manager: Any) -> bool:
    """Return True for a `ParquetSnapshotIOManager`, without importing the class."""
    return hasattr(manager, "publication")


class _RunEndedError(dg.DagsterError, dg.DagsterExecutionInterruptedError):
    """Raised to end an interrupted run. Dagster does not retry a step after this error."""


@contextmanager
def canceling_ends(instance: dg.DagsterInstance | None, run_id: str | None) -> Iterator[None]:
    """Prevent retries of canceled runs, and of interrupted runs that Dagster did not launch.

    If the step executes in the run's process, Dagster would otherwise retry the step according to
    its retry policy. After other interrupts, such as a server shutdown, the retry policy applies.
    """
    try:
        with _sigint_raises():
            yield
    except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt) as interrupt:
        run = instance.get_run_by_id(run_id) if instance and run_id else None
        if run and run.status is dg.DagsterRunStatus.CANCELING:
            raise _RunEndedError("The run was canceled.") from None
        # Dagster records the origin of runs that it launches.
        is_by_hand = isinstance(interrupt, KeyboardInterrupt) or not (run and run.remote_job_origin)
        # The run's process interrupts its step processes and knows the reason.
        if is_by_hand and multiprocessing.parent_process() is None:
            raise _RunEndedError("The run was interrupted.") from None
        raise


@contextmanager
def _sigint_raises() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt. Dagster handles KeyboardInterrupt like SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except GeneratorExit:  # Dagster left the step and sets handlers itself; any thread may be here
        raise
    except BaseException:
        signal.signal(signal.SIGINT, before)
        raise
    signal.signal(signal.SIGINT, before)


@contextmanager
def permanent_errors_fail() -> Iterator[None]:
    """Convert permanent errors to failures that are not retried."""
    try:
        yield
    except OctogenError as error:
        if error.persistence is not Persistence.PERMANENT:
            raise
        metadata: Metadata = {}
        if isinstance(error, OctogenInsufficientCreditError) and error.top_up_url:
            metadata = {"octogen/top_up_url": dg.MetadataValue.url(error.top_up_url)}
        # A traceback does not help to set a missing API key.
        cause = None if isinstance(error, MissingAPIKeyError) else error
        raise dg.Failure(str(error), metadata=metadata, allow_retries=False) from cause


def require_max_age(max_age: timedelta | None) -> None:
    """Reject a `max_age` that is not a positive timedelta."""
    if max_age is not None and not isinstance(max_age, timedelta):
        raise TypeError(
            f"max_age must be a timedelta such as timedelta(hours=48), or None; got {max_age!r}."
        )
    if max_age is not None and max_age <= timedelta():
        raise ValueError(f"max_age must be a positive timedelta or None; got {max_age!r}.")


def hours(time: timedelta) -> float:
    """Return a duration in hours, rounded to one decimal place."""
    return round(time / timedelta(hours=1), 1)
