"""What the assets and checks of both wings have in common.

The decorator of every asset, the retries of a run, its budget, checks, and frames as Markdown.
Importing it also tells Dagster the version of this package, which Dagster reports with its own.
"""

import functools
import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster_shared.libraries import DagsterLibraryRegistry

from octogen_dagster import __version__
from octogen_dagster.errors import (
    MissingAPIKeyError,
    OctogenError,
    OctogenInsufficientCreditError,
    Persistence,
)
from octogen_dagster.settings import checked_name

if TYPE_CHECKING:
    import polars as pl

    from octogen_dagster.api.spending import Spending

DagsterLibraryRegistry.register("octogen-dagster", __version__, is_dagster_package=False)

RESOURCE = "octogen"
"""The key of the `OctogenResource`."""

POOL = "octogen"
GROUP = "octogen"

RETRY_POLICY = dg.RetryPolicy(max_retries=3, delay=10, backoff=dg.Backoff.EXPONENTIAL)
"""Three retries, after 10, 30 and 70 seconds: Dagster multiplies the delay by 2**n - 1."""

ACCEPT_SHRINKING = "accept_shrinking"
ACCEPT_SHRINKING_CONFIG = dg.Field(
    bool,
    default_value=False,
    is_required=False,
    description="True to publish this run's snapshot of whole catalogs however few rows it has.",
)

FRESH = "fresh"

SPENT_TAG = "octogen/spent_usd"
"""The tags of a run with the dollars that each of its steps has spent: this, a dot and the step."""
_AMOUNT = re.compile(r"\d{1,12}(\.\d{1,12})?")
_BACKFILL_TAG, _PARENT_TAG = "dagster/backfill", "dagster/parent_run_id"

_KIND = "dagster/kind/"
"""What the tag of a kind begins with."""
_IO_MANAGER_KEY = "dagster/io_manager_key"
"""The metadata of a spec that `AssetSpec.with_io_manager_key` made."""

Metadata = dict[str, dg.MetadataValue[Any] | dg.TableSchema | str | int | float]


def asset_arguments_of(name: str | dg.AssetSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `@dagster.asset` that a builder's user gave, as a name or a spec and others.

    What the spec leaves unset is left out, so that the builder's default holds.
    """
    if isinstance(name, str):
        return {"name": checked_name(name, f"Asset {name!r}: "), **given}
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
    """True if a run of an asset may have a range of partitions."""
    return bool(backfill_policy and partitions_def)


def octogen_asset(
    own: Mapping[str, Any], given: Mapping[str, Any], *, takes_ranges: bool = False
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Return `@dagster.asset` with this project's defaults.

    The asset's code reference is the line that calls the builder. `own` are the arguments of the
    builder; `given` are those of `asset_arguments_of`, which override all others; their metadata
    and dependencies are added. `execute` among them is called in place of the asset's function,
    with the context and a function without arguments that calls the asset's. A backfill policy is
    refused unless the asset `takes_ranges` of partitions.
    """
    defaults = {"group_name": GROUP, "pool": POOL, "kinds": {"octogen", "polars", "parquet"}}
    metadata = {
        **_code_reference(),
        **(own.get("metadata") or {}),
        **(given.get("metadata") or {}),
    }
    deps = [*(own.get("deps") or ()), *(given.get("deps") or ())]
    arguments = {**defaults, **own, **given, "metadata": metadata, "deps": deps}
    has_range = takes_range(arguments.get("backfill_policy"), arguments.get("partitions_def"))
    if has_range and not takes_ranges:
        raise ValueError(  # also for multi_run(1): Dagster gives such a run a range of one
            f"Asset {arguments['name']!r} takes one partition in each run, and a run by a "
            "backfill_policy has a range of them. Leave backfill_policy out: a backfill then "
            "requests a run for each partition."
        )
    execute = arguments.pop("execute", None) or (lambda _context, compute: compute())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # of the policy, as when it was made
        decorator: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.asset(**arguments)
    return lambda asset: decorator(_executed(asset, execute))


def _executed(asset: Callable[..., Any], execute: Callable[..., Any]) -> Callable[..., Any]:
    """Return an asset's function, with the signature that Dagster reads, run by `execute`."""

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

    # Dagster reads the outputs of a generator otherwise than those of a function.
    return generate if inspect.isgeneratorfunction(asset) else compute


def _code_reference() -> Metadata:
    """Return the place in the user's code that calls this package; empty if there is none."""
    frame = inspect.currentframe()
    while frame and _package(frame) == __package__:
        frame = frame.f_back
    if frame is None or _package(frame) == dg.__name__:  # built by Dagster, as from a YAML file
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


def asset_key(arguments: Mapping[str, Any]) -> dg.AssetKey:
    """The key of an asset that is made with these arguments."""
    prefix = arguments.get("key_prefix") or []
    return dg.AssetKey([*([prefix] if isinstance(prefix, str) else prefix), arguments["name"]])


@contextmanager
def canceling_ends(instance: dg.DagsterInstance | None, run_id: str | None) -> Iterator[None]:
    """End a step that is interrupted since somebody cancels its run.

    Dagster executes an interrupted step again by its retry policy, also in such a run if its steps
    are executed in its process. An interrupt for another reason, such as a server that shuts down,
    is left to the policy.
    """
    try:
        yield
    except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
        run = instance.get_run_by_id(run_id) if instance and run_id else None
        if instance is None or run is None or run.status is not dg.DagsterRunStatus.CANCELING:
            raise
        # It ends as failed, and Dagster's retries of failed runs are not to begin it again.
        instance.add_run_tags(run.run_id, {"dagster/max_retries": "0"})
        raise dg.Failure("The run was canceled.", allow_retries=False) from None


@contextmanager
def permanent_errors_fail() -> Iterator[None]:
    """Turn an error that lasts until somebody acts into a failure that is not retried.

    Its metadata links to where credit is bought, if that is what is missing.
    """
    try:
        yield
    except OctogenError as error:
        if error.persistence is not Persistence.PERMANENT:
            raise
        metadata: Metadata = {}
        if isinstance(error, OctogenInsufficientCreditError) and error.top_up_url:
            metadata = {"octogen/top_up_url": dg.MetadataValue.url(error.top_up_url)}
        # A key is missing where the run executes; how the code looked for it helps nobody.
        cause = None if isinstance(error, MissingAPIKeyError) else error
        raise dg.Failure(str(error), metadata=metadata, allow_retries=False) from cause


@contextmanager
def shared_budget(
    instance: dg.DagsterInstance | None,
    run_id: str | None,
    step: str,
    spending: "Spending | None",
    log: dg.DagsterLogManager,
) -> Iterator[Callable[[], None]]:
    """Count what other steps and attempts of the run have spent, and tell them what the block does.

    If the budget is that of the run's backfill, what its other runs have spent is counted too.

    The amounts are kept in tags of the run, which a re-execution of the run inherits: one for each
    step, so that those that end at once replace no amount of another. They are written at the end
    and when the block calls what it is given, which a process that is killed afterwards has then
    told; then the backfill is counted again. Steps and runs that work at the same time in other
    processes may each spend what was left when they counted last. `instance` is None in a test
    without a run.
    """
    has_budget = spending and not spending.budget_usd is spending.backfill_budget_usd is None
    if spending is None or not has_budget or instance is None or run_id is None:
        yield lambda: None
        return
    tag = f"{SPENT_TAG}.{step}"
    run = instance.get_run_by_id(run_id)
    spent = _spent(run.tags) if run else {}
    spending.raise_to(sum(spent.values(), Decimal(0)))
    backfill = run.tags.get(_BACKFILL_TAG) if run and spending.backfill_budget_usd else None
    if run and backfill:
        log.info(_count_backfill(instance, backfill, run, spending))
    begun_at = told = spending.spent_usd

    def tell() -> None:
        nonlocal told
        if spending.spent_usd > told:
            told = spending.spent_usd
            own = spent.get(tag, Decimal(0)) + told - begun_at
            instance.add_run_tags(run_id, {tag: f"{own:f}"})
            if run and backfill:
                _count_backfill(instance, backfill, run, spending)

    try:
        yield tell
    finally:
        tell()


def _count_backfill(
    instance: dg.DagsterInstance, backfill: str, run: dg.DagsterRun, spending: "Spending"
) -> str:
    """Count what the other runs of a backfill have spent; return a line for the log."""
    from octogen_dagster.api.spending import usd

    runs = instance.get_runs(dg.RunsFilter.for_backfill(backfill))
    in_tags = {each.run_id: sum(_spent(each.tags).values(), Decimal(0)) for each in runs}
    # The tags of a retry also have what the run spent that it retries.
    counted_twice = sum(in_tags.get(each.tags.get(_PARENT_TAG, ""), Decimal(0)) for each in runs)
    spent = sum(in_tags.values(), Decimal(0)) - counted_twice
    spending.count_other_runs(spent - in_tags[run.run_id])
    budget = spending.backfill_budget_usd or 0
    line = f"Backfill {backfill} has spent {usd(spent)} of its budget of {usd(budget)}."
    started = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    others = sum(each.status in started and each.run_id != run.run_id for each in runs)
    if others:
        most = usd(others * min(budget, spending.budget_usd or budget))
        line += (
            f" Other runs of it are under way: {others}. What they spend during this read is not "
            f"counted, so the backfill may exceed its budget, by at most {most}."
        )
    return line


def _spent(tags: Mapping[str, str]) -> dict[str, Decimal]:
    """The dollars that a run's steps have spent, by its tags."""
    return {
        tag: Decimal(amount)
        for tag, amount in tags.items()
        if tag.startswith(f"{SPENT_TAG}.") and _AMOUNT.fullmatch(amount)
    }


def require_max_age(max_age: timedelta | None) -> None:
    """Refuse a setting `max_age` that is not positive."""
    if max_age is not None and max_age <= timedelta():
        raise ValueError(f"max_age must be a positive timedelta or None, not {max_age!r}.")


def hours(time: timedelta) -> float:
    """A time in hours, rounded to one decimal place."""
    return round(time / timedelta(hours=1), 1)


_MAX_CELL_LENGTH = 80
_MAX_LINK_LENGTH = 300
_MAX_INLINE_LENGTH = 999
"""The most UTF-16 characters of Markdown that the UI shows in place, and not behind a link."""
_LINK = re.compile(r"https?://[^\s<`\[\]]+")
_BREAKS_A_ROW = re.compile(r"[\\|]")
_MARKUP = re.compile(r"[\\|<*`~]|(?<=])\(")
"""What is not text in Markdown: a shop's titles must not become images, links or formats."""


def inline_table(frame: "pl.DataFrame") -> str:
    """Format the first rows of a frame, at least one, as a table that the UI shows in place."""
    for rows in range(len(frame), 1, -1):
        table = markdown_table(frame.head(rows))
        if len(table.encode("utf-16-le")) / 2 <= _MAX_INLINE_LENGTH:
            return table
    return markdown_table(frame.head(1))


def markdown_table(frame: "pl.DataFrame") -> str:
    """Format a frame as a Markdown table, in which markup is shown as text.

    A struct is shown by its `name`, or without one by its fields that are not empty. A long cell is
    cut, unless it is a link.
    """
    header, *rows = [[_cell(value) for value in row] for row in (frame.columns, *frame.rows())]
    lines = [header, ["---"] * frame.width, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, dict):
        value = value.get("name") or ", ".join(str(part) for part in value.values() if part)
    if isinstance(value, float):
        value = round(value, 4)
    text = "" if value is None else " ".join(str(value).split())
    is_link = _LINK.fullmatch(text)
    limit = _MAX_LINK_LENGTH if is_link else _MAX_CELL_LENGTH
    if len(text) > limit:
        text = f"{text[: limit - 1]}…"
    return (_BREAKS_A_ROW if is_link else _MARKUP).sub(r"\\\g<0>", text)
