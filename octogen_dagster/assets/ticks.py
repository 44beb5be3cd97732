"""The requests of a sensor. Dagster's own database is its memory.

The data version of the last materialization of a partition that exists says what is done. The tag
`octogen/request` of the asset's runs says what was tried and when, and those that are not finished
which partitions are being read. So a tick that was lost, a cursor that was reset and a daemon that
died compute the same again.

A run of an asset with a backfill policy may have a range of partitions: neighbours in the order in
which Dagster knows them, which is the one in which they were added.
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
"""Runs that a tick requests; the next ticks request the others."""
MAX_NEW_PARTITIONS = 2_000
"""Partitions that a tick adds. The daemon asks for each whether it exists, a millisecond each."""
REQUEST_TAG = "octogen/request"
"""The tag of each run that a sensor requests: a digest of `<key>@<version>`, or of the asset of a
range. The UI's list of runs has 38 characters for a tag, and cuts the others off.
"""
RUN_KEY_TAG = "dagster/run_key"
"""The tag with the run key, which says what was requested, and the time of the tick, since what
failed is tried again.

Dagster's own time of a run is in the time zone of the database. A tag of ours for the time would be
one more line of each run in the UI.
"""
PARTITION_TAG = "dagster/partition"

_FIRST_WAIT, _MAX_WAIT = 600.0, 6 * 3600.0
MEMORY_SECONDS = 2 * 24 * 3600.0
"""Older runs are not counted: one that always fails has 13 in this time, and waits the longest."""
_RESUMED_SECONDS = 24 * 3600.0
"""The time for which Dagster launches the runs of a tick that was interrupted."""
_LONGEST_RUN_SECONDS = 7 * 24 * 3600.0
"""A run that is older died with its machine, where no run monitoring noticed."""
_MOST_ZONES_SECONDS = 24 * 3600.0
"""The most that a time of Dagster's is off: PostgreSQL writes it in its session's zone."""
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
"""The first and the last key of a run, which are one for a run with a single partition."""


def request_tag(name: str) -> str:
    """Return the value of a tag for what is requested."""
    return hashlib.sha256(name.encode()).hexdigest()[:12]


class Wanted(NamedTuple):
    """A wanted state: a version of a key. Without versions, any one is enough."""

    key: str
    version: str = ""
    since: float = 0.0
    """The time of the version in seconds since 1970; 0 if it has none."""
    retried: bool = True
    """False if a further run is of little use until the version changes: it waits two days."""

    @property
    def name(self) -> str:
        return f"{self.key}@{self.version}"

    @property
    def request(self) -> str:
        return request_tag(self.name)

    def is_done(self, done: Mapping[str, str]) -> bool:
        return self.key in done and (not self.version or done[self.key] == self.version)


class Tries(NamedTuple):
    """The number of runs requested for a version of a key, and the time of the last one."""

    runs: int
    last_at: float

    def are_recent(self, now: float) -> bool:
        """True while the next try waits. A clock that jumped, in either direction, ends a wait."""
        wait = min(_FIRST_WAIT * 2.0 ** min(self.runs - 1, 6), _MAX_WAIT)
        return abs(now - self.last_at) < wait


class KeyOrder:
    """The keys of dynamic partitions in Dagster's order: that in which they were added."""

    def __init__(self, keys: Iterable[str]) -> None:
        self.keys = list(keys)
        self._position = {key: number for number, key in enumerate(self.keys)}

    def between(self, first: str, last: str) -> Sequence[str]:
        """The keys of a range; only its ends if one of these was deleted."""
        if first == last:
            return [first]
        if first in self._position and last in self._position:
            return self.keys[self._position[first] : self._position[last] + 1]
        return [first, last]


class RequestedRun(NamedTuple):
    """A run that a sensor requested: when, and for which keys, or for which version of one."""

    requested_at: float
    keys: Sequence[str]
    request: str = ""

    def was_for(self, each: Wanted, now: float) -> bool:
        """True if the run was to bring this version, as far as can be known of a range.

        A run of a range does not say which versions it was requested for. It was not for one that
        is newer than itself. If the clock of the service is ahead, every version seems newer.
        """
        if self.request:
            return self.request == each.request
        return not self.requested_at < each.since <= now


class TickPlan(NamedTuple):
    """The runs of a tick, its new partitions, and all that is missing, also for a later tick."""

    requests: list[list[Wanted]]
    """The states that each run is to bring, in the order of its range."""
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
    """Decide what a tick requests; equal arguments give equal results.

    What was neither done nor tried comes first, then what waits longest since it appeared or was
    tried, so that nothing starves. A key that is busy, which is one whose run is not finished, is
    left out in any version. `tried` returns the tries of those that have any, by key. `known` are
    the keys of the partitions that exist, in Dagster's order: others are added behind them, and a
    run has up to `most` keys that are neighbours, so that its range has only what is due.
    """
    position = {key: number for number, key in enumerate(known)}

    def is_missing(each: Wanted) -> bool:
        # A partition that was deleted is not done, although its last materialization is kept.
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
    # What waits for its next try is added as well, but for what was deleted: see below.
    waiting = (each for each in missing if each.key not in done)
    absent = dict.fromkeys(each.key for each in (*due, *waiting) if each.key not in position)
    added = list(absent)[:MAX_NEW_PARTITIONS]
    position.update((key, number) for number, key in enumerate(added, len(position)))
    requests = _neighbours([each for each in due if each.key in position], position, most)
    requests = requests[:MAX_RUNS]
    # A partition that was deleted counts as done again once it exists, so its run comes with it.
    requested = {each.key for run in requests for each in run}
    new = [key for key in added if key in requested or key not in done]
    return TickPlan(requests, new, missing)


def _neighbours(
    due: Sequence[Wanted], position: Mapping[str, int], most: int
) -> list[list[Wanted]]:
    """Cut what is due into runs of keys that follow each other; the order of `due` is kept."""
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
    """Count the runs of two days for what is missing, by key; the newest of them comes last."""
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
    """The most partitions that a run of an asset may have, by its backfill policy."""
    policy = asset.backfill_policy
    return 1 if policy is None else policy.max_partitions_per_run or sys.maxsize


def run_request(
    first: str, last: str, *, tags: Mapping[str, str], **arguments: Any
) -> dg.RunRequest:
    """Return the request of a run of one partition, or of all from one to another."""
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
    """Plan a tick with what Dagster's database says, and return what it requests.

    `busy` must be read before what is wanted and `done` after it. Otherwise a run that ends
    meanwhile, and has read a newer version, is taken for one that has not brought what is wanted.
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
            f"{left:,} more are due or wait for their next try; the next ticks request them."
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
    """Plan a tick for assets without partitions, each run with those of one key of `assets`."""

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
    """Read the keys whose run is queued or running, whoever requested it.

    A run of a job without a selection of assets is not known to be one of the asset.
    """
    return [
        keys
        for run in instance.get_run_records(dg.RunsFilter(statuses=_UNFINISHED))
        if _may_be_at_work(run, now)
        if asset in (run.dagster_run.asset_selection or ())
        if (keys := _key_range(run, key_of)) is not None
    ]


def _may_be_at_work(run: dg.RunRecord, now: float) -> bool:
    """False if the launch of a run was cut off, when the daemon died, or the run never ended."""
    status = run.dagster_run.status
    if status in _BEFORE_START:
        return abs(now - _requested_at(run)) < _RESUMED_SECONDS
    started_at = run.start_time or _requested_at(run)
    return status is dg.DagsterRunStatus.QUEUED or abs(now - started_at) < _LONGEST_RUN_SECONDS


def _key_range(run: dg.RunRecord, key_of: Callable[[str], str | None]) -> KeyRange | None:
    """The first and the last key of a run; None if it has none."""
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
    """Read the runs that were requested lately for what is missing; the newest one comes last."""
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
    """Read the runs that were requested lately by these requests; the newest one comes last."""
    begin = datetime.fromtimestamp(now - MEMORY_SECONDS - _MOST_ZONES_SECONDS, UTC)
    recent = dg.RunsFilter(created_after=begin)
    # To read a run costs some ten times what it does to look for one.
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
    """The time of the tick that requested a run; of another run the one at which it was created."""
    tags, at = run.dagster_run.tags, run.create_timestamp
    if REQUEST_TAG in tags and RUN_KEY_TAG in tags:
        at = datetime.fromisoformat(tags[RUN_KEY_TAG].rpartition(" ")[2])
    return at.timestamp()


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
    for state in dagster_private(context.instance, "all_instigator_state")():
        origin = state.origin.repository_origin
        place = origin.repository_name, origin.code_location_origin.location_name
        if (state.instigator_name, *place) != own:
            continue
        get_ticks = dagster_private(context.instance, "get_ticks")
        # With the present one, which has not ended.
        latest = get_ticks(state.instigator_origin_id, state.selector_id, limit=3)
        ended = [tick for tick in latest if tick.is_completed][:2]
        return len(ended) == 2 and all(
            tick.is_failure or _MAY_FAIL in (tick.skip_reason or "") for tick in ended
        )
    return False
