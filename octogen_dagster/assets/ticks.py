"""Computes a sensor's run requests from Dagster's database.

    wanted       the versions that the source has
    done         the data version in each partition's latest materialization
    tried        runs with the tag `octogen/request`
    in progress  the asset's unfinished runs

The sensor stores no other state. After a lost tick, a reset cursor or a daemon restart, the same
requests are computed again.

With a backfill policy, a run has a range of partitions that are adjacent in Dagster's order.
Dagster sorts partitions in the order in which they were added.
"""

import hashlib
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import dagster as dg

from octogen_dagster.assets.definition import RANGE_END_TAG, RANGE_START_TAG
from octogen_dagster.errors import OctogenError, Persistence, dagster_private

MAX_RUNS = 50
"""Maximum number of run requests per tick. Later ticks request the remaining runs."""
MAX_NEW_PARTITIONS = 2_000
"""Maximum number of new partitions per tick. The daemon adds about 1,000 partitions per second."""
REQUEST_TAG = "octogen/request"
"""Tag on each requested run. The value is a digest of `<key>@<version>`.

For a range of partitions, the value is a digest of the asset key. Digests are short, because the UI
truncates tags after 38 characters in the list of runs.
"""
RUN_KEY_TAG = "dagster/run_key"
"""Dagster's tag for the run key. A run key contains the request and the time of the tick.

The time makes the run keys of retries unique. The sensor also reads a request's time from the run
key, because Dagster's run times depend on the database's time zone. A separate tag for the time
would add a line to each run in the UI.
"""
PARTITION_TAG = "dagster/partition"

_FIRST_WAIT, _MAX_WAIT = 600.0, 6 * 3600.0
MEMORY_SECONDS = 2 * 24 * 3600.0
"""The period in which requested runs are counted.

If a key always fails, the wait between retries reaches its maximum within this period.
"""
_RESUMED_SECONDS = 24 * 3600.0
"""The period after an interrupted tick in which Dagster can still launch the tick's runs."""
_LONGEST_RUN_SECONDS = 7 * 24 * 3600.0
"""Age at which an unfinished run is considered dead.

Unless run monitoring is enabled, Dagster never marks such a run as failed.
"""
_MOST_ZONES_SECONDS = 24 * 3600.0
"""Maximum error in run times. PostgreSQL stores run times in the session's time zone."""
_REQUESTS_IN_A_QUERY = 500

_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_BEFORE_START = {dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING}


KeyRange = tuple[str, str]
"""A run's first and last key. Both keys are the same if the run has a single partition."""


def request_tag(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:12]


class Wanted(NamedTuple):
    """A key to materialize in a given version, or in any version if `version` is empty."""

    key: str
    version: str = ""
    since: float = 0.0
    """The version's time as a Unix timestamp, or 0 if it is unknown."""
    retried: bool = True
    """If false, a version is requested only once in two days. Earlier retries would rarely help."""

    @property
    def name(self) -> str:
        return f"{self.key}@{self.version}"

    @property
    def request(self) -> str:
        return request_tag(self.name)

    def is_done(self, done: Mapping[str, str]) -> bool:
        return self.key in done and (not self.version or done[self.key] == self.version)


class Tries(NamedTuple):
    """The number of runs requested for a version of a key, and the time of the latest request."""

    runs: int
    last_at: float

    def are_recent(self, now: float) -> bool:
        """Return True until the next retry is due, or until a large clock change ends the wait."""
        wait = min(_FIRST_WAIT * 2.0 ** min(self.runs - 1, 6), _MAX_WAIT)
        return abs(now - self.last_at) < wait


class KeyOrder:
    """Dynamic partition keys in the order in which they were added."""

    def __init__(self, keys: Iterable[str]) -> None:
        self.keys = list(keys)
        self._position = {key: number for number, key in enumerate(self.keys)}

    def between(self, first: str, last: str) -> Sequence[str]:
        """Return the keys from `first` to `last`, or only these two keys if either was deleted."""
        if first == last:
            return [first]
        if first in self._position and last in self._position:
            return self.keys[self._position[first] : self._position[last] + 1]
        return [first, last]


class RequestedRun(NamedTuple):
    """A run requested by a sensor. Only a run for a single key has a `request` tag."""

    requested_at: float
    keys: Sequence[str]
    request: str = ""

    def was_for(self, each: Wanted, now: float) -> bool:
        """Return True if the run was requested for this version.

        A run with a range of partitions has no tag for each version, so it counts for every version
        that is older than the run. Version times in the future are ignored: if the service's clock
        is ahead, every version would seem newer than the run.
        """
        if self.request:
            return self.request == each.request
        return not self.requested_at < each.since <= now


class TickPlan(NamedTuple):
    """A tick's run requests and new partitions, and all keys that need a run."""

    requests: list[list[Wanted]]
    """For each run, the list of its keys in the order of the range."""
    new_partitions: list[str]
    missing: list[Wanted]


def plan(
    wanted: Iterable[Wanted],
    done: Mapping[str, str],
    tried: Callable[[Sequence[Wanted]], Mapping[str, Tries]],
    busy: Collection[str],
    now: float,
    *,
    known: Iterable[str],
    most: int = 1,
) -> TickPlan:
    """Compute a tick's requests. The result depends only on the arguments.

    Keys that were neither materialized nor requested before come first. The other keys are sorted
    by the time of their version or latest request, oldest first, so that every key gets its turn.
    Keys in unfinished runs (`busy`) are skipped, whatever their version. `tried` returns the
    earlier requests by key. `known` contains the existing partitions in Dagster's order, and new
    partitions are added at the end. A run has at most `most` keys. A run's keys are adjacent, so
    that the run's range contains only keys that are due.
    """
    position = {key: number for number, key in enumerate(known)}

    def is_missing(each: Wanted) -> bool:
        # A deleted partition is not done, although Dagster keeps its last materialization.
        is_done = each.key in position and each.is_done(done)
        return not is_done and each.key not in busy

    missing = list(filter(is_missing, wanted))
    tries = tried(missing) if missing else {}

    def is_due(each: Wanted) -> bool:
        before = tries.get(each.key)
        return before is None or (each.retried and not before.are_recent(now))

    def urgency(each: Wanted) -> tuple[bool, float, str]:
        before = tries.get(each.key)
        is_new = before is None and not (each.key in done and each.key in position)
        return not is_new, before.last_at if before else each.since, each.key

    due = sorted(filter(is_due, missing), key=urgency)
    # Partitions that wait for a retry are added as well, except for deleted ones: see below.
    waiting = (each for each in missing if each.key not in done)
    absent = dict.fromkeys(each.key for each in (*due, *waiting) if each.key not in position)
    added = list(absent)[:MAX_NEW_PARTITIONS]
    position.update((key, number) for number, key in enumerate(added, len(position)))
    requests = _neighbours([each for each in due if each.key in position], position, most)
    requests = requests[:MAX_RUNS]
    # A deleted partition counts as done once it exists again, so it is added only with its run.
    requested = {each.key for run in requests for each in run}
    new = [key for key in added if key in requested or key not in done]
    return TickPlan(requests, new, missing)


def _neighbours(
    due: Sequence[Wanted], position: Mapping[str, int], most: int
) -> list[list[Wanted]]:
    """Group adjacent keys into runs. The run with the first key in `due` comes first."""
    if most == 1:
        return [[each] for each in due]
    runs: list[list[int]] = []
    last = -1
    for place, rank in sorted((position[each.key], rank) for rank, each in enumerate(due)):
        if place == last + 1 and runs and len(runs[-1]) < most:
            runs[-1].append(rank)
        else:
            runs.append([rank])
        last = place
    return [[due[rank] for rank in run] for run in sorted(runs, key=min)]


def count_tries(
    missing: Iterable[Wanted], runs: Iterable[RequestedRun], now: float
) -> dict[str, Tries]:
    """Count the runs that were requested for each key in the last two days.

    `runs` must be sorted, oldest first.
    """
    tries: dict[str, Tries] = {}
    by_key = {each.key: each for each in missing}
    for run in runs:
        if run.requested_at > now - MEMORY_SECONDS:
            for key in run.keys:
                if (each := by_key.get(key)) and run.was_for(each, now):
                    before = tries.get(key)
                    tries[key] = Tries(before.runs + 1 if before else 1, run.requested_at)
    return tries


def most_in_a_run(asset: dg.AssetsDefinition) -> int:
    """Return the maximum number of partitions that the asset's backfill policy allows in a run."""
    policy = asset.backfill_policy
    return 1 if policy is None else policy.max_partitions_per_run or sys.maxsize


def run_request(
    first: str, last: str, *, tags: Mapping[str, str], **arguments: Any
) -> dg.RunRequest:
    if first == last:
        return dg.RunRequest(partition_key=first, tags=tags, **arguments)
    of_range = {RANGE_START_TAG: str(first), RANGE_END_TAG: str(last)}
    return dg.RunRequest(tags={**tags, **of_range}, **arguments)


def request_runs(
    context: dg.SensorEvaluationContext,
    asset: dg.AssetsDefinition,
    partitions: dg.DynamicPartitionsDefinition,
    *,
    wanted: Sequence[Wanted],
    done: Mapping[str, str],
    busy: Iterable[KeyRange],
    now: float,
    nothing_due: str,
    partition_of: Callable[[str], str] = str,
    key_of: Callable[[str], str | None] = str,
    checks: Sequence[dg.AssetCheckKey] | None = None,
    cursor: str | None = None,
) -> dg.SensorResult:
    """Plan a tick from Dagster's database and return its requests.

    The caller must read `busy` first, then `wanted`, then `done`. Otherwise, a key would be
    requested again if its run ends in between with a newer version.
    """
    instance = context.instance
    order = KeyOrder(instance.get_dynamic_partitions(str(partitions.name)))

    def read_tries(some: Sequence[Wanted]) -> Mapping[str, Tries]:
        runs = _read_runs(instance, asset.key, some, now, order=order, key_of=key_of)
        return count_tries(some, runs, now)

    requests, new, missing = plan(
        wanted,
        done,
        read_tries,
        {key for first, last in busy for key in order.between(first, last)},
        now,
        known=order.keys,
        most=most_in_a_run(asset),
    )
    left = len(missing) - sum(map(len, requests))
    if left:
        context.log.info(
            f"{left:,} more partitions need a run or wait for a retry. Later ticks request them."
        )
    requested_at = datetime.fromtimestamp(now, UTC).isoformat()

    asset_name = asset.key.to_user_string()
    run_requests = [
        run_request(
            partition_of(run[0].key),
            partition_of(run[-1].key),
            tags={REQUEST_TAG: request_tag(name := asset_name if len(run) > 1 else run[0].name)},
            run_key=f"{name} {partition_of(run[0].key)} {requested_at}",
            asset_selection=[asset.key],  # or the run shows no target
            asset_check_keys=checks,
        )
        for run in requests
    ]
    return dg.SensorResult(
        run_requests=run_requests,
        skip_reason=None if requests else nothing_due,
        dynamic_partitions_requests=[partitions.build_add_request(new)] if new else [],
        cursor=cursor,
    )


def request_assets(
    context: dg.SensorEvaluationContext,
    assets: Mapping[str, Sequence[dg.AssetKey]],
    *,
    wanted: Sequence[Wanted],
    done: Mapping[str, str],
    busy: Collection[str],
    now: float,
    nothing_due: str,
) -> dg.SensorResult:
    """Plan a tick for assets without partitions. Each key in `assets` gets a separate run."""

    def read_tries(some: Sequence[Wanted]) -> Mapping[str, Tries]:
        keys = {each.request: each.key for each in some}
        runs = [
            RequestedRun(_requested_at(run), [keys[request]], request)
            for run in _read_requested(context.instance, list(keys), now)
            if (request := run.dagster_run.tags[REQUEST_TAG]) in keys
        ]
        return count_tries(some, runs, now)

    requests, _, _ = plan(wanted, done, read_tries, busy, now, known=assets)
    requested_at = datetime.fromtimestamp(now, UTC).isoformat()
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=f"{each.name} {requested_at}",
                tags={REQUEST_TAG: each.request},
                asset_selection=list(assets[each.key]),
            )
            for (each,) in requests
        ],
        skip_reason=None if requests else nothing_due,
    )


def read_busy(
    instance: dg.DagsterInstance,
    asset: dg.AssetKey,
    now: float,
    key_of: Callable[[str], str | None] = str,
) -> list[KeyRange]:
    """Return the first and last key of each unfinished run that materializes the asset.

    Runs that the sensor did not request are included. Runs without an asset selection are ignored.
    """
    return [
        keys
        for run in instance.get_run_records(dg.RunsFilter(statuses=_UNFINISHED))
        if _may_be_at_work(run, now)
        if asset in (run.dagster_run.asset_selection or ())
        if (keys := _key_range(run, key_of)) is not None
    ]


def _may_be_at_work(run: dg.RunRecord, now: float) -> bool:
    """Return False if an unfinished run seems to be dead or will never be launched."""
    status = run.dagster_run.status
    if status in _BEFORE_START:
        return abs(now - _requested_at(run)) < _RESUMED_SECONDS
    started_at = run.start_time or _requested_at(run)
    return status is dg.DagsterRunStatus.QUEUED or abs(now - started_at) < _LONGEST_RUN_SECONDS


def _key_range(run: dg.RunRecord, key_of: Callable[[str], str | None]) -> KeyRange | None:
    """Return a run's first and last key, or None if the run has no partitions."""
    tags = run.dagster_run.tags
    partition = tags.get(PARTITION_TAG, "")
    first = key_of(tags.get(RANGE_START_TAG, partition))
    last = key_of(tags.get(RANGE_END_TAG, partition))
    return None if first is None or last is None else (first, last)


def _read_runs(
    instance: dg.DagsterInstance,
    asset: dg.AssetKey,
    missing: Sequence[Wanted],
    now: float,
    *,
    order: KeyOrder,
    key_of: Callable[[str], str | None],
) -> Iterator[RequestedRun]:
    """Yield recent runs that were requested for missing keys, oldest first."""
    of_range = request_tag(asset.to_user_string())
    requests = [of_range, *(each.request for each in missing)]
    for run in _read_requested(instance, requests, now):
        keys = _key_range(run, key_of)
        if asset in (run.dagster_run.asset_selection or ()) and keys is not None:
            request = run.dagster_run.tags[REQUEST_TAG]
            yield RequestedRun(
                _requested_at(run), order.between(*keys), "" if request == of_range else request
            )


def _read_requested(
    instance: dg.DagsterInstance, requests: Sequence[str], now: float
) -> list[dg.RunRecord]:
    """Return recent runs with one of these request tags, oldest first."""
    begin = datetime.fromtimestamp(now - MEMORY_SECONDS - _MOST_ZONES_SECONDS, UTC)
    recent = dg.RunsFilter(created_after=begin)
    # Reading a run takes about ten times as long as querying for a tag.
    if 10 * instance.get_runs_count(recent) < len(requests):
        wanted, records = set(requests), list(instance.get_run_records(recent))
        records = [run for run in records if run.dagster_run.tags.get(REQUEST_TAG) in wanted]
    else:
        records = []
        for first in range(0, len(requests), _REQUESTS_IN_A_QUERY):
            some = requests[first : first + _REQUESTS_IN_A_QUERY]
            filters = dg.RunsFilter(tags={REQUEST_TAG: some}, created_after=begin)
            records += instance.get_run_records(filters)
    return sorted(records, key=lambda run: run.storage_id)


def _requested_at(run: dg.RunRecord) -> float:
    """Return the time of the requesting tick or, if it is unknown, the run's creation time."""
    tags, at = run.dagster_run.tags, run.create_timestamp
    if REQUEST_TAG in tags and RUN_KEY_TAG in tags:
        at = datetime.fromisoformat(tags[RUN_KEY_TAG].rpartition(" ")[2])
    return at.timestamp()


def named_partitions(
    asset: dg.AssetsDefinition, partitions_def: dg.PartitionsDefinition[Any] | None, what: str
) -> dg.DynamicPartitionsDefinition:
    """Return the asset's dynamic partitions. If a sensor cannot add keys, raise a ValueError."""
    if isinstance(partitions_def, dg.DynamicPartitionsDefinition) and partitions_def.name:
        return partitions_def
    raise ValueError(
        f"Asset {asset.key.to_user_string()!r} must have a DynamicPartitionsDefinition with a "
        f"name, so that the sensor can add {what} to it."
    )


_MAY_FAIL = ", and the third tick in a row without a response fails"


def skip_or_fail(
    context: dg.SensorEvaluationContext, sensor: str, problem: str, error: Exception
) -> dg.SkipReason:
    """Skip the tick if the error is transient. Fail the tick if the error is permanent.

    Dagster sends alerts only for failed ticks. If an error might be transient or permanent, the
    third tick in a row fails. Errors from other libraries count as permanent, because they usually
    mean that a setting is invalid.
    """
    persistence = error.persistence if isinstance(error, OctogenError) else Persistence.PERMANENT
    if persistence is Persistence.PERMANENT:
        raise dg.Failure(f"{problem}. {error}") from None
    is_unclear = persistence is Persistence.UNCLEAR
    if is_unclear and _had_no_answer_twice(context, sensor):
        raise dg.Failure(f"{problem} in at least three ticks in a row. {error}") from None
    tries_again = f"the next tick tries again{_MAY_FAIL if is_unclear else ''}"
    return dg.SkipReason(f"{problem}; {tries_again}. {error}")


def _had_no_answer_twice(context: dg.SensorEvaluationContext, sensor: str) -> bool:
    """Return True if both of the last two ticks failed or were skipped for an `UNCLEAR` error."""
    location = context.code_location_origin
    if context.repository_name is None or location is None:  # called directly, as tests do
        return False
    own = sensor, context.repository_name, location.location_name
    for state in dagster_private(context.instance, "all_instigator_state")():
        origin = state.origin.repository_origin
        place = origin.repository_name, origin.code_location_origin.location_name
        if (state.instigator_name, *place) != own:
            continue
        get_ticks = dagster_private(context.instance, "get_ticks")
        # Includes the current tick, which has not ended.
        latest = get_ticks(state.instigator_origin_id, state.selector_id, limit=3)
        ended = [tick for tick in latest if tick.is_completed][:2]
        return len(ended) == 2 and all(
            tick.is_failure or _MAY_FAIL in (tick.skip_reason or "") for tick in ended
        )
    return False
