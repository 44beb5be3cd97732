"""What a sensor requests. Dagster's own database is its memory.

The data version of the last materialization of a partition that exists says what is done. The tag
`octogen/request` of the asset's runs says what was tried and when, and those that are not finished
which partitions are being read. So a tick that was lost, a cursor that was reset and a daemon that
died compute the same again.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

import dagster as dg

from octogen_dagster.errors import OctogenError, Persistence

MAX_RUNS = 50
"""Runs that a tick requests; the next ticks request the others."""
MAX_NEW_PARTITIONS = 1_000
REQUEST_TAG = "octogen/request"
"""The tag of each run that a sensor requests: `<key>@<version>`."""
REQUESTED_AT_TAG = "octogen/requested_at"
"""The tag with the time of the tick. Dagster's own time of a run is in the database's time zone."""
DATA_VERSION_TAG = "dagster/data_version"
PARTITION_TAG = "dagster/partition"

_FIRST_WAIT, _MAX_WAIT = 600.0, 6 * 3600.0
MEMORY_SECONDS = 2 * 24 * 3600.0
"""Older runs are not counted: one that always fails has 13 in this time, and waits the longest."""
_RESUMED_SECONDS = 24 * 3600.0
"""For how long Dagster launches the runs of a tick that was interrupted."""
_MOST_ZONES_SECONDS = 24 * 3600.0
"""How far a time of Dagster's may be off: PostgreSQL writes it in the time zone of its session."""
_REQUESTS_IN_A_QUERY = 500

_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_BEFORE_START = {dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING}


class Wanted(NamedTuple):
    """What there should be: a version of a key. Without versions, any one is enough."""

    key: str
    version: str = ""
    since: float = 0.0
    """The time of the version in seconds since 1970; 0 if it has none."""
    retried: bool = True
    """False if a further run is of little use until the version changes: it waits two days."""

    @property
    def request(self) -> str:
        return f"{self.key}@{self.version}"

    def is_done(self, done: Mapping[str, str]) -> bool:
        return self.key in done and (not self.version or done[self.key] == self.version)


class Tries(NamedTuple):
    """How many runs were requested for a version of a key, and when the last one was."""

    runs: int
    last_at: float

    def are_recent(self, now: float) -> bool:
        """True while the next try waits. A clock that jumped, in either direction, ends a wait."""
        wait = min(_FIRST_WAIT * 2.0 ** min(self.runs - 1, 6), _MAX_WAIT)
        return abs(now - self.last_at) < wait


class Plan(NamedTuple):
    """What a tick requests, and all that is missing, which is more if it waits."""

    requests: list[Wanted]
    missing: list[Wanted]


def plan(
    wanted: Iterable[Wanted],
    done: Mapping[str, str],
    tried: Callable[[Sequence[str]], Mapping[str, Tries]],
    busy: Collection[str],
    now: float,
) -> Plan:
    """Decide what a tick requests; equal arguments give equal results.

    What was neither done nor tried comes first, then what waits longest since it appeared or was
    tried, so that nothing starves. A key that is busy, which is one whose run is not finished, is
    left out in any version. `tried` returns the tries of those requests that have any.
    """
    missing = [each for each in wanted if not each.is_done(done) and each.key not in busy]
    tries = tried([each.request for each in missing]) if missing else {}

    def is_due(each: Wanted) -> bool:
        before = tries.get(each.request)
        return before is None or (each.retried and not before.are_recent(now))

    def urgency(each: Wanted) -> tuple[bool, float, str]:
        before = tries.get(each.request)
        is_new = before is None and each.key not in done
        return not is_new, before.last_at if before else each.since, each.key

    due = sorted(filter(is_due, missing), key=urgency)
    return Plan(due[:MAX_RUNS], missing)


def request_runs(
    context: dg.SensorEvaluationContext,
    asset: dg.AssetsDefinition,
    partitions: dg.DynamicPartitionsDefinition,
    *,
    wanted: Sequence[Wanted],
    done: Mapping[str, str],
    busy: Collection[str],
    now: float,
    nothing_due: str,
    partition_of: Callable[[str], str] = str,
    checks: Sequence[dg.AssetCheckKey] | None = None,
    cursor: str | None = None,
) -> dg.SensorResult:
    """Plan a tick with what Dagster's database says, and return what it requests.

    `busy` must be read before what is wanted and `done` after it. Otherwise a run that ends
    meanwhile, and has read a newer version, is taken for one that has not brought what is wanted.
    """
    instance = context.instance
    known = set(instance.get_dynamic_partitions(str(partitions.name)))
    existing = {key: version for key, version in done.items() if key in known}
    requests, missing = plan(
        wanted, existing, lambda some: read_tries(instance, asset.key, some, now), busy, now
    )
    # A partition that was deleted counts as done again once it exists, so its run comes with it.
    keys = dict.fromkeys(each.key for each in (*requests, *missing) if each.key not in done)
    keys.update(dict.fromkeys(each.key for each in requests))
    new = [key for key in keys if key not in known][:MAX_NEW_PARTITIONS]
    if len(missing) > len(requests):
        context.log.info(
            f"{len(missing) - len(requests):,} more are due or wait for their next try; the next "
            "ticks request them."
        )
    requested_at = datetime.fromtimestamp(now, timezone.utc).isoformat()
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                # No run key: Dagster would launch it once, and a run that failed is tried again.
                partition_key=partition_of(each.key),
                tags={REQUEST_TAG: each.request, REQUESTED_AT_TAG: requested_at},
                asset_selection=[asset.key],  # or the run shows no target
                asset_check_keys=checks,
            )
            for each in requests
        ],
        skip_reason=None if requests else nothing_due,
        dynamic_partitions_requests=[partitions.build_add_request(new)] if new else [],
        cursor=cursor,
    )


def read_versions(
    instance: dg.DagsterInstance, asset: dg.AssetKey, after: int = 0
) -> dict[str, str]:
    """Read the data version of the last materialization of each partition after an event."""
    tags = instance.event_log_storage.get_latest_tags_by_partition(
        asset, dg.DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION_TAG], after_cursor=after
    )
    return {partition: found[DATA_VERSION_TAG] for partition, found in tags.items()}


def read_busy_keys(
    instance: dg.DagsterInstance,
    asset: dg.AssetKey,
    now: float,
    key_of: Callable[[str], str | None] = str,
) -> set[str]:
    """Read the keys whose run is queued or running, whoever requested it.

    A run of a job without a selection of assets is not known to be one of the asset.
    """
    return {
        key
        for run in instance.get_run_records(dg.RunsFilter(statuses=_UNFINISHED))
        # A run whose launch was cut off, when the daemon died, does not block its key for ever.
        if run.dagster_run.status not in _BEFORE_START
        or abs(now - _requested_at(run)) < _RESUMED_SECONDS
        if asset in (run.dagster_run.asset_selection or ())
        if (key := key_of(run.dagster_run.tags.get(PARTITION_TAG, ""))) is not None
    }


def read_tries(
    instance: dg.DagsterInstance, asset: dg.AssetKey, requests: Sequence[str], now: float
) -> dict[str, Tries]:
    """Read the runs of an asset that were requested lately, by their request."""
    begin = datetime.fromtimestamp(now - MEMORY_SECONDS - _MOST_ZONES_SECONDS, timezone.utc)
    tries: dict[str, Tries] = {}
    for first in range(0, len(requests), _REQUESTS_IN_A_QUERY):
        some = list(requests[first : first + _REQUESTS_IN_A_QUERY])
        filters = dg.RunsFilter(tags={REQUEST_TAG: some}, created_after=begin)
        for run in reversed(instance.get_run_records(filters)):  # the newest one comes last
            tags, at = run.dagster_run.tags, _requested_at(run)
            selection = run.dagster_run.asset_selection or ()
            if asset in selection and at > now - MEMORY_SECONDS:
                before = tries.get(tags[REQUEST_TAG])
                tries[tags[REQUEST_TAG]] = Tries(before.runs + 1 if before else 1, at)
    return tries


def _requested_at(run: dg.RunRecord) -> float:
    """The time of the tick that requested a run; of another run the one at which it was created."""
    at = run.dagster_run.tags.get(REQUESTED_AT_TAG)
    return (datetime.fromisoformat(at) if at else run.create_timestamp).timestamp()


def named_partitions(
    asset: dg.AssetsDefinition, partitions_def: dg.PartitionsDefinition[Any] | None, what: str
) -> dg.DynamicPartitionsDefinition:
    """Return the partitions of an asset to which a sensor adds keys, or raise a ValueError."""
    if isinstance(partitions_def, dg.DynamicPartitionsDefinition) and partitions_def.name:
        return partitions_def
    raise ValueError(
        f"Asset {asset.key.to_user_string()!r} must have a DynamicPartitionsDefinition with a "
        f"name: {what} are added to it."
    )


_MAY_FAIL = ", and the third in a row without an answer fails"


def skip_or_fail(
    context: dg.SensorEvaluationContext, sensor: str, problem: str, error: Exception
) -> dg.SkipReason:
    """Return why a tick whose source failed is skipped, unless that makes the tick fail.

    An error that passes by itself never fails a tick; one that lasts does, as does one that is not
    of this project, a setting that is invalid. If nobody can tell, the third tick in a row fails.
    """
    persistence = error.persistence if isinstance(error, OctogenError) else Persistence.PERMANENT
    if persistence is Persistence.PERMANENT:
        raise dg.Failure(f"{problem}. {error}") from None
    is_unclear = persistence is Persistence.UNCLEAR
    if is_unclear and _had_no_answer_twice(context, sensor):
        raise dg.Failure(f"{problem}, for the third tick in a row or longer. {error}") from None
    tries_again = f"the next tick tries again{_MAY_FAIL if is_unclear else ''}"
    return dg.SkipReason(f"{problem}; {tries_again}. {error}")


def _had_no_answer_twice(context: dg.SensorEvaluationContext, sensor: str) -> bool:
    """True if the last two ticks of a sensor failed, or were skipped since nobody answered."""
    location = context.code_location_origin
    if context.repository_name is None or location is None:  # called directly, as tests do
        return False
    own = sensor, context.repository_name, location.location_name
    for state in context.instance.all_instigator_state():
        origin = state.origin.repository_origin
        place = origin.repository_name, origin.code_location_origin.location_name
        if (state.instigator_name, *place) != own:
            continue
        latest = context.instance.get_ticks(  # with the present one, which has not ended
            state.instigator_origin_id, state.selector_id, limit=3
        )
        ended = [tick for tick in latest if tick.is_completed][:2]
        return len(ended) == 2 and all(
            tick.is_failure or _MAY_FAIL in (tick.skip_reason or "") for tick in ended
        )
    return False
