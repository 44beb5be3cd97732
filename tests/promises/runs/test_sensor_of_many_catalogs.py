"""Many catalogs are due: what a tick costs, and how they come into few runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

import octogen_dagster as od
from octogen_dagster.api.catalog_states import CatalogList, CatalogState

CATALOGS = 2_000


class CountedKey(str):
    """A partition key that counts how often one is compared with another."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        CountedKey.comparisons += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_a_tick_with_every_catalog_due_compares_each_key_a_few_times(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"shop-{number}" for number in range(CATALOGS)]
    stored = [CountedKey(key) for key in keys]
    monkeypatch.setattr(instance, "get_dynamic_partitions", lambda _name: stored)
    monkeypatch.setattr(CountedKey, "comparisons", 0)
    sensor = od.build_catalog_sensor(
        od.build_products_asset("products", partitions_def=od.catalog_partitions)
    )
    octogen = od.OctogenResource(api_key="unused", catalog_source=od.NamedCatalogs(keys))
    context = dg.build_sensor_context(instance=instance, resources={"octogen": octogen})
    result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    assert len(result.run_requests or ()) == 50
    assert not result.dynamic_partitions_requests
    assert CountedKey.comparisons < 10 * CATALOGS


NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
TODAY = "|2026-11-25"
START, END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


class Shops(od.CatalogSource):
    """Catalogs and the times at which they were indexed."""

    def __init__(self, *keys: str) -> None:
        self.indexed = dict.fromkeys(keys, NOON - timedelta(hours=1))

    async def fetch(self, client: od.OctogenClient) -> CatalogList:
        return CatalogList(
            [CatalogState(key, last_indexed_at=at) for key, at in self.indexed.items()]
        )


class Fleet:
    """Dagster with the sensor: runs have up to `most` catalogs, and end when the test says so."""

    def __init__(
        self, instance: dg.DagsterInstance, shops: Shops, most: int | None, *, days: bool = False
    ) -> None:
        policy = dg.BackfillPolicy.multi_run(most) if most else dg.BackfillPolicy.single_run()
        self.instance, self.shops = instance, shops
        self.suffix = TODAY if days else ""
        self.products = od.build_products_asset(
            "products",
            partitions_def=od.catalog_days("2026-11-01") if days else od.catalog_partitions,
            backfill_policy=policy,
        )
        octogen = od.OctogenResource(api_key="unused", catalog_source=shops)
        defs = dg.Definitions(assets=[self.products], resources={"octogen": octogen})
        self._job = defs.resolve_implicit_global_asset_job_def()
        self._resources = {"octogen": octogen}
        self.now = NOON
        self._sensor = od.build_catalog_sensor(self.products, _clock=lambda: self.now)

    def add(self, *keys: str) -> None:
        self.instance.add_dynamic_partitions("octogen_catalogs", list(keys))

    def tick(self) -> list[dg.DagsterRun]:
        """Make a tick and its runs, which are then under way."""
        result = self._sensor(
            dg.build_sensor_context(instance=self.instance, resources=self._resources)
        )
        assert isinstance(result, dg.SensorResult)
        for added in result.dynamic_partitions_requests or ():
            self.add(*added.partition_keys)
        return [self.launch(request) for request in result.run_requests or ()]

    def launch(self, request: dg.RunRequest) -> dg.DagsterRun:
        single = {"dagster/partition": request.partition_key} if request.partition_key else {}
        return self.instance.create_run_for_job(
            self._job,
            status=dg.DagsterRunStatus.STARTED,
            tags={**request.tags, **single, "dagster/run_key": str(request.run_key)},
            asset_selection=frozenset([self.products.key]),
        )

    def order(self) -> list[str]:
        return list(self.instance.get_dynamic_partitions("octogen_catalogs"))

    def keys(self, run: dg.DagsterRun) -> list[str]:
        """The catalogs of a run, in Dagster's order."""
        single = run.tags.get("dagster/partition", "")
        ends = [run.tags.get(tag, single) for tag in (START, END)]
        assert all(end.endswith(self.suffix) for end in ends)
        order = self.order()
        first, last = (order.index(end.removesuffix(self.suffix)) for end in ends)
        return order[first : last + 1]

    def requested(self) -> list[str]:
        """The catalogs of each run of a tick, as "a b c"."""
        return [" ".join(self.keys(run)) for run in self.tick()]

    def end(self, run: dg.DagsterRun, *failed: str) -> None:
        """End a run that has read its catalogs, but for some."""
        for key in set(self.keys(run)) - set(failed):
            tags = {"dagster/data_version": self.shops.indexed[key].isoformat()}
            self.instance.report_runless_asset_event(
                dg.AssetMaterialization("products", partition=f"{key}{self.suffix}", tags=tags)
            )
        self.instance.report_run_failed(run)  # or succeeded: the sensor asks for neither


@pytest.mark.long
@pytest.mark.parametrize(("most", "known"), [(40, True), (200, False)], ids=["known", "new"])
def test_ten_thousand_due_catalogs_are_requested_within_five_ticks(
    instance: dg.DagsterInstance, most: int, known: bool
) -> None:
    keys = [f"shop-{number:04}" for number in range(10_000)]
    fleet = Fleet(instance, Shops(*keys), most)
    if known:
        fleet.add(*keys)
    ticks = [fleet.tick() for _ in range(5)]
    runs = [run for tick in ticks for run in tick]
    assert max(map(len, ticks)) <= 50
    assert len(runs) == len(keys) // most
    place = {key: number for number, key in enumerate(fleet.order())}
    starts, ends = (sorted(place[run.tags[tag]] for run in runs) for tag in (START, END))
    assert starts == [after + 1 for after in (-1, *ends[:-1])]
    assert ends[-1] == len(keys) - 1
    assert fleet.tick() == []


@pytest.mark.parametrize("days", [False, True], ids=["catalogs", "days"])
@pytest.mark.parametrize(
    ("most", "due", "runs"),
    [
        (3, "abcdefg", ["a b c", "d e f", "g"]),
        (None, "abcdefg", ["a b c d e f g"]),
        (3, "bdf", ["b", "d", "f"]),
        (3, "abdefg", ["a b", "d e f", "g"]),
        (1, "abc", ["a", "b", "c"]),
    ],
)
def test_a_run_has_neighbours_that_are_due_and_no_other_catalog(
    instance: dg.DagsterInstance, most: int | None, due: str, runs: list[str], days: bool
) -> None:
    fleet = Fleet(instance, Shops(*"abcdefg"), most, days=days)
    fleet.add(*"abcdefg")
    for run in fleet.tick():
        fleet.end(run)
    assert fleet.tick() == []
    fleet.now += timedelta(minutes=5)
    fleet.shops.indexed |= dict.fromkeys(due, fleet.now)
    assert fleet.requested() == runs
    assert fleet.tick() == []


def test_the_catalogs_that_failed_in_a_run_wait_and_the_others_are_done(
    instance: dg.DagsterInstance,
) -> None:
    fleet = Fleet(instance, Shops(*"abcdef"), 10)
    (run,) = fleet.tick()
    fleet.end(run, "b", "c", "e")
    fleet.now += timedelta(minutes=9)
    assert fleet.tick() == []
    fleet.now += timedelta(minutes=2)
    again = fleet.tick()
    assert [fleet.keys(run) for run in again] == [["b", "c"], ["e"]]
    for run in again:
        fleet.end(run, *fleet.keys(run))
    fleet.now += timedelta(minutes=19)
    assert fleet.tick() == []
    fleet.shops.indexed["c"] = fleet.now - timedelta(minutes=1)  # its failures are of the past
    assert fleet.requested() == ["c"]
    fleet.now += timedelta(minutes=2)
    assert fleet.requested() == ["b", "e"]


def test_what_a_range_of_anybody_reads_is_not_requested(instance: dg.DagsterInstance) -> None:
    fleet = Fleet(instance, Shops(*"abcdef"), 10)
    fleet.add(*"abcdef")
    fleet.launch(dg.RunRequest(tags={START: "b", END: "d", "dagster/backfill": "abc"}))
    fleet.now = datetime.now(UTC)  # by Dagster's clock the run has just begun
    assert fleet.requested() == ["a", "e f"]


def test_a_partition_that_was_deleted_brings_its_neighbours_together(
    instance: dg.DagsterInstance,
) -> None:
    fleet = Fleet(instance, Shops(*"abc"), 10)
    fleet.add(*"abc")
    (run,) = fleet.tick()
    fleet.end(run)
    instance.delete_dynamic_partition("octogen_catalogs", "b")
    fleet.shops.indexed |= dict.fromkeys("ac", NOON)
    fleet.now += timedelta(minutes=30)
    assert fleet.requested() == ["a c b"]  # it is listed, so it is added again, as the last one


def test_many_catalogs_that_failed_in_one_run_wait(instance: dg.DagsterInstance) -> None:
    keys = [f"shop-{number}" for number in range(40)]
    fleet = Fleet(instance, Shops(*keys), None)
    (run,) = fleet.tick()
    fleet.end(run, *keys)
    fleet.now += timedelta(minutes=9)
    assert fleet.tick() == []
    fleet.now += timedelta(minutes=2)
    assert len(fleet.tick()) == 1
