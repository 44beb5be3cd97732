"""The check `fresh`: it looks at every catalog, and reads no snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

import octogen_dagster as od
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import RawServer, http
from tests.promises.runs.checked import numbers
from tests.results import octogen_at

KEY = dg.AssetKey("products")
MAX_AGE = timedelta(days=2)


class Clock:
    """An asset whose materializations are reported, and its check at a time of choice."""

    def __init__(
        self, instance: dg.DagsterInstance, partitions: dg.PartitionsDefinition[str] | None = None
    ) -> None:
        self.instance = instance
        self.asset = od.build_products_asset("products", partitions_def=partitions)
        self.upstream = list[dg.AssetsDefinition]()
        self.now = datetime.now(UTC)
        self.severity = dg.AssetCheckSeverity.ERROR
        self.octogen: od.OctogenResource | None = None

    def report(self, *partitions: str | None) -> None:
        for partition in partitions:
            self.instance.report_runless_asset_event(
                dg.AssetMaterialization(KEY, partition=partition)
            )

    def age(self) -> None:
        """Let the time pass after which all that was reported so far is too old, and no more."""
        self.now = datetime.now(UTC) + MAX_AGE

    def checks(self) -> list[dg.AssetChecksDefinition]:
        """The check alone; a maximum age is given, so a derived asset has it as well."""
        others = od.build_snapshot_checks(self.asset, max_age=None)
        return od.build_snapshot_checks(
            self.asset,
            max_age=MAX_AGE,
            severity=self.severity,
            exclude={spec.name for each in others for spec in each.check_specs},
            _clock=lambda: self.now,
        )

    def check(self) -> dg.AssetCheckEvaluation:
        """Run the check on its own: nothing is materialized, and there is no snapshot."""
        result = dg.materialize(
            [*self.upstream, self.asset, *self.checks()],
            instance=self.instance,
            selection=dg.AssetSelection.all_asset_checks(),
            resources={"octogen": self.octogen, "io_manager": dg.mem_io_manager},
        )
        (evaluation,) = result.get_asset_check_evaluations()
        return evaluation


def catalogs(instance: dg.DagsterInstance, keys: Sequence[str]) -> None:
    instance.add_dynamic_partitions("octogen_catalogs", keys)


@pytest.mark.slow
def test_one_live_catalog_does_not_keep_the_dead_ones_green(instance: dg.DagsterInstance) -> None:
    keys = [f"c{number:03}" for number in range(300)]
    catalogs(instance, keys)
    clock = Clock(instance, od.catalog_partitions)
    clock.report(*keys[:290])
    clock.age()
    clock.report(keys[7])

    found = clock.check()
    assert not found.passed
    shown = numbers(found)
    sample = shown.pop("sample").splitlines()
    assert shown == {
        "fresh": 1,
        "stale": 299,
        "never_materialized": 10,
        "awaited": 0,
        "withdrawn": 0,
        "max_age_hours": 48.0,
    }
    assert sample[0] == "| partition | last materialized | hours ago |"
    assert sample[2] == "| c290 | never |  |"
    assert sample[12].startswith("| c000 | 20")
    assert sample[12].endswith(" UTC | 48.0 |")
    assert len(sample) == 22


def test_a_first_backfill_may_last(instance: dg.DagsterInstance) -> None:
    catalogs(instance, ["acme", "last", "zen"])
    clock = Clock(instance, od.catalog_partitions)
    assert not clock.check().passed  # nothing has begun
    clock.report("acme")
    found = clock.check()
    assert found.passed
    assert (numbers(found)["fresh"], numbers(found)["awaited"]) == (1, 2)
    clock.age()
    clock.report("acme", "zen")
    found = clock.check()
    assert not found.passed
    assert numbers(found)["sample"].splitlines()[2:] == ["| last | never |  |"]


def test_a_deleted_partition_is_not_expected(instance: dg.DagsterInstance) -> None:
    catalogs(instance, ["acme", "zen"])
    clock = Clock(instance, od.catalog_partitions)
    clock.report("acme", "zen")
    clock.age()
    clock.report("acme")
    instance.delete_dynamic_partition("octogen_catalogs", "zen")
    assert clock.check().passed


@pytest.mark.slow
@pytest.mark.parametrize("partitions", [od.catalog_partitions, od.catalog_days("2026-01-01")])
def test_a_catalog_that_is_no_longer_listed_is_named_and_fails_nothing(
    instance: dg.DagsterInstance,
    shops: Sandbox,
    octogen: od.OctogenResource,
    partitions: dg.PartitionsDefinition[str],
) -> None:
    catalogs(instance, ["strada", "northpeak", "gone"])
    clock = Clock(instance, partitions)
    clock.octogen = octogen
    of_day = "" if partitions is od.catalog_partitions else f"|{clock.now:%Y-%m-%d}"
    clock.report(*(f"{key}{of_day}" for key in ("strada", "northpeak", "gone")))
    assert clock.check().passed
    requests = shops.requests
    assert not requests  # as long as all are fresh, nothing is asked
    clock.age()
    of_day = "" if partitions is od.catalog_partitions else f"|{clock.now:%Y-%m-%d}"

    clock.report(f"strada{of_day}")
    found = clock.check()
    assert not found.passed
    shown = numbers(found)
    assert (shown["fresh"], shown["stale"], shown["withdrawn"]) == (1, 1, 1)
    assert shown["withdrawn_catalogs"] == ["gone"]
    clock.report(f"northpeak{of_day}")
    found = clock.check()
    assert found.passed
    shown = numbers(found)
    assert (shown["fresh"], shown["stale"], shown["withdrawn"]) == (2, 0, 1)


def test_a_list_that_cannot_be_read_withdraws_nothing(
    instance: dg.DagsterInstance, shops: Sandbox
) -> None:
    catalogs(instance, ["gone"])
    clock = Clock(instance, od.catalog_partitions)
    for source in (None, od.ShopCatalogs(hosts=["strada.example", "gone.example"])):
        settings: dict[str, Any] = {} if source is None else {"catalog_source": source}
        clock.octogen = octogen_at(shops, attempts=1, **settings)
        shops.inject(Fault("status", 500))
        shown = numbers(clock.check())
        assert (shown["stale"], shown["withdrawn"]) == (1, 0)


@pytest.mark.parametrize("listed", [[], [{"catalog": "other"}]], ids=["nothing", "others"])
def test_a_source_that_lists_none_of_the_catalogs_turns_nothing_green(
    instance: dg.DagsterInstance, listed: list[dict[str, str]]
) -> None:
    catalogs(instance, ["acme", "zen"])
    clock = Clock(instance, od.catalog_partitions)
    clock.report("acme", "zen")
    clock.age()
    with RawServer(lambda _: http(body=listed)) as server:
        clock.octogen = od.OctogenResource(
            api_key="key", base_url=server.origin, catalog_source=od.GrantedCatalogs()
        )
        found = clock.check()
    assert not found.passed
    shown = numbers(found)
    assert (shown["stale"], shown["withdrawn"]) == (2, 0)


def test_a_catalog_without_products_is_not_late(
    instance: dg.DagsterInstance, shops: Sandbox, octogen: od.OctogenResource
) -> None:
    """The sensor waits until there is something to publish."""
    shops.grant("voltaic", products=0)
    catalogs(instance, ["strada", "voltaic"])
    clock = Clock(instance, od.catalog_partitions)
    clock.octogen = octogen
    clock.report("strada")
    clock.age()
    clock.report("strada")
    found = clock.check()
    assert found.passed, found.description


def days(clock: Clock, *ages: int) -> list[str]:
    """The days that are some days before the clock's."""
    return [f"{clock.now - timedelta(days=age):%Y-%m-%d}" for age in ages]


def test_an_asset_of_days_is_fresh_if_a_late_day_is(instance: dg.DagsterInstance) -> None:
    clock = Clock(instance, od.snapshot_days("2026-01-01"))
    old, late = days(clock, 9, 0)
    assert not clock.check().passed
    clock.report(late)
    assert clock.check().passed
    clock.age()
    clock.report(old)  # which says nothing about the present
    found = clock.check()
    assert not found.passed
    assert "| products | 20" in numbers(found)["sample"]


def test_each_catalog_needs_a_late_day(instance: dg.DagsterInstance) -> None:
    catalogs(instance, ["acme", "zen"])
    clock = Clock(instance, od.catalog_days("2026-01-01"))
    old, late = days(clock, 9, 1)
    clock.report(f"acme|{late}", f"acme|{old}", f"zen|{old}")
    shown = numbers(clock.check())
    assert (shown["fresh"], shown["stale"], shown["never_materialized"]) == (1, 1, 0)
    assert "| zen | 20" in shown["sample"]
    clock.report(f"zen|{late}")
    assert clock.check().passed


def test_an_asset_without_partitions(instance: dg.DagsterInstance) -> None:
    clock = Clock(instance)
    found = clock.check()
    assert not found.passed
    assert "| products | never |  |" in numbers(found)["sample"]
    clock.report(None)
    assert clock.check().passed
    clock.age()
    assert not clock.check().passed
    clock.severity = dg.AssetCheckSeverity.WARN
    assert clock.check().severity is dg.AssetCheckSeverity.WARN


def test_a_derived_asset_is_checked_only_with_a_maximum_age(
    instance: dg.DagsterInstance,
) -> None:
    clock = Clock(instance)
    clock.upstream = [clock.asset]
    clock.asset = history = od.build_product_history_asset(clock.asset)
    names = {key.name for each in od.build_snapshot_checks(history) for key in each.check_keys}
    assert "fresh" not in names
    assert not clock.check().passed
    instance.report_runless_asset_event(dg.AssetMaterialization(history.key))
    assert clock.check().passed


@pytest.mark.parametrize(
    "partitions", [None, od.catalog_partitions, od.snapshot_days("2026-01-01")]
)
def test_it_runs_every_hour_where_automation_is_on(
    instance: dg.DagsterInstance, partitions: dg.PartitionsDefinition[str] | None
) -> None:
    catalogs(instance, ["acme"])
    clock = Clock(instance, partitions)
    octogen = od.OctogenResource(catalog_source=od.GrantedCatalogs())
    defs = dg.Definitions(
        [clock.asset], asset_checks=clock.checks(), resources={"octogen": octogen}
    )
    cursor: Any = None
    requested = []
    for minute in (10, 40, 61, 62):
        tick = dg.evaluate_automation_conditions(
            defs,
            instance=instance,
            cursor=cursor,
            evaluation_time=datetime(2026, 11, 26, 8, tzinfo=UTC) + timedelta(minutes=minute),
        )
        cursor = tick.cursor
        requested.append(tick.total_requested)
    assert requested == [0, 0, 1, 0]
