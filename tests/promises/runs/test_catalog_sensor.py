"""The catalog sensor: what a tick requests, what it says, and when it fails.

`test_ticks.py` shows with Dagster's daemon that each version is read once.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
import httpx
import pytest

import octogen_dagster as od
from octogen_dagster.api.catalog_states import CatalogList, CatalogState
from octogen_dagster.errors import (
    OctogenAuthenticationError,
    OctogenForbiddenError,
    OctogenInsufficientCreditError,
    OctogenNotFoundError,
    OctogenRateLimitError,
    OctogenServerError,
)
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.snapshots.partitions import catalog_partition_key
from tests.api.servers import RawServer, dripping

PRODUCTS = od.build_products_asset("products", partitions_def=od.catalog_partitions)
DAYS = od.build_products_asset("products", partitions_def=od.catalog_days("2026-01-01"))
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


class Listed(od.CatalogSource):
    """Catalogs as a test says, or an error."""

    def __init__(self, *states: CatalogState, error: Exception | None = None) -> None:
        self._states = states
        self._error = error

    async def fetch(self, client: od.OctogenClient) -> CatalogList:
        if self._error:
            raise self._error
        return CatalogList(list(self._states))


def evaluate(
    instance: dg.DagsterInstance,
    octogen: od.OctogenResource | od.CatalogSource,
    asset: dg.AssetsDefinition = PRODUCTS,
    cursor: str | None = None,
    now: datetime = NOON,
) -> dg.SensorResult | dg.SkipReason:
    if isinstance(octogen, od.CatalogSource):
        octogen = od.OctogenResource(api_key="key", catalog_source=octogen)
    result = od.build_catalog_sensor(asset, _clock=lambda: now)(
        dg.build_sensor_context(instance=instance, cursor=cursor, resources={"octogen": octogen})
    )
    assert isinstance(result, dg.SensorResult | dg.SkipReason)
    return result


def requested(*arguments: Any, **named: Any) -> list[str | None]:
    """The partitions that a tick requests."""
    result = evaluate(*arguments, **named)
    assert isinstance(result, dg.SensorResult)
    return [run.partition_key for run in result.run_requests or ()]


def materialize(
    instance: dg.DagsterInstance, partition: str, indexed: datetime | None, of_run: str = ""
) -> None:
    version = indexed.isoformat() if indexed else "a hash of Dagster's"
    tags = {"dagster/data_version": version + of_run}
    instance.add_dynamic_partitions("octogen_catalogs", [partition.partition("|")[0]])
    instance.report_runless_asset_event(
        dg.AssetMaterialization("products", partition=partition, tags=tags)
    )


def request_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def test_a_run_has_one_tag_which_the_list_of_runs_shows_whole(instance: dg.DagsterInstance) -> None:
    result = evaluate(instance, Listed(CatalogState("acme", last_indexed_at=NOON)))
    assert isinstance(result, dg.SensorResult)
    (request,) = result.run_requests or ()
    assert request.tags == {"octogen/request": request_of(f"acme@{NOON.isoformat()}")}
    assert str(request.run_key).startswith(f"acme@{NOON.isoformat()} acme ")


@pytest.mark.parametrize("asset", [PRODUCTS, DAYS], ids=["catalogs", "days"])
def test_what_is_requested_is_what_has_another_version_than_its_last_snapshot(
    instance: dg.DagsterInstance, asset: dg.AssetsDefinition
) -> None:
    hour = timedelta(hours=1)
    source = Listed(
        CatalogState("same", last_indexed_at=NOON),
        CatalogState("same-in-berlin", computed_at=NOON.astimezone(timezone(hour))),
        CatalogState("same-with-other-rows", last_indexed_at=NOON),
        CatalogState("again", last_indexed_at=NOON),
        CatalogState("earlier", last_indexed_at=NOON - 5 * hour),
        CatalogState("new", last_indexed_at=NOON),
        CatalogState("of-no-time"),
        CatalogState("of-no-time-any-more"),
        CatalogState("new-and-empty", last_indexed_at=NOON, product_count=0),
        CatalogState("emptied", last_indexed_at=NOON - 2 * hour, product_count=0),
    )
    suffix = "|2026-11-24" if asset is DAYS else ""
    for key, time in {
        "same": NOON,
        "same-in-berlin": NOON,
        "again": NOON - hour,
        "earlier": NOON - hour,
        "of-no-time": None,
        "of-no-time-any-more": NOON,
        "emptied": NOON - 3 * hour,
        "no-longer-listed": NOON,
    }.items():
        materialize(instance, f"{key}{suffix}", time)
    materialize(instance, f"same-with-other-rows{suffix}", NOON, " read again in a-run")
    today = "|2026-11-25" if asset is DAYS else ""
    due = [f"{key}{today}" for key in ("new", "earlier", "emptied", "again")]
    assert requested(instance, source, asset) == due
    assert requested(instance, source, asset, cursor="not json") == due


@pytest.mark.parametrize(
    ("status", "hours", "requested_hours", "due"),
    [
        ("STARTED", 25, 25, []),
        ("STARTED", 24 * 8, 24 * 8, ["acme"]),  # it died with its machine
        ("CANCELING", 24 * 8, 24 * 8, ["acme"]),
        ("STARTING", 1, 1, []),
        ("STARTING", 25, 25, ["acme"]),
        ("STARTING", 33, 25, ["acme"]),  # the database has another time zone
        ("STARTING", 33, 23, []),
        ("STARTING", 17, 25, ["acme"]),
    ],
)
def test_a_run_that_is_not_finished_blocks_its_catalog_unless_it_cannot_be_at_work(
    instance: dg.DagsterInstance, status: str, hours: int, requested_hours: int, due: list[str]
) -> None:
    now = datetime.now(UTC) + timedelta(hours=hours)
    source = Listed(CatalogState("acme", last_indexed_at=NOON))
    defs = dg.Definitions(
        assets=[PRODUCTS], resources={"octogen": od.OctogenResource(catalog_source=source)}
    )
    instance.create_run_for_job(
        defs.resolve_implicit_global_asset_job_def(),
        status=dg.DagsterRunStatus[status],
        tags={
            "dagster/partition": "acme",
            "octogen/request": request_of("acme@"),
            "dagster/run_key": f"acme@ acme {(now - timedelta(hours=requested_hours)).isoformat()}",
        },
        asset_selection=frozenset([PRODUCTS.key]),
    )
    assert requested(instance, source, now=now) == due


@pytest.mark.parametrize(
    ("asset", "partition"), [(PRODUCTS, "acme"), (DAYS, "acme|2026-11-24")], ids=["catalog", "day"]
)
@pytest.mark.parametrize("selected", ["products", None])
def test_a_run_of_a_backfill_or_a_person_blocks_the_catalog_of_its_asset(
    instance: dg.DagsterInstance, asset: dg.AssetsDefinition, partition: str, selected: str | None
) -> None:
    source = Listed(CatalogState("acme", last_indexed_at=NOON))
    defs = dg.Definitions(
        assets=[asset], resources={"octogen": od.OctogenResource(catalog_source=source)}
    )
    instance.create_run_for_job(
        defs.resolve_implicit_global_asset_job_def(),
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": partition, "dagster/backfill": "abc"},
        asset_selection=frozenset([dg.AssetKey(selected)]) if selected else None,
    )
    asked = requested(instance, source, asset, now=datetime.now(UTC))
    assert bool(asked) is (selected != "products")


def test_days_are_read_from_a_cache_that_may_be_lost(instance: dg.DagsterInstance) -> None:
    source = Listed(CatalogState("acme", last_indexed_at=NOON))
    cursors: list[str | None] = [None]

    def due() -> bool:
        result = evaluate(instance, source, DAYS, cursors[-1])
        assert isinstance(result, dg.SensorResult)
        cursors.append(result.cursor)
        return bool(result.run_requests)

    materialize(instance, "acme|2026-11-23", NOON)
    materialize(instance, "acme|2026-11-24", NOON - timedelta(days=1))
    materialize(instance, "of other partitions", NOON)
    assert due()
    materialize(instance, "acme|2026-11-25", NOON)
    assert not due()
    assert not due()
    cursors.append(None)
    assert not due()


@pytest.mark.parametrize(
    ("config", "due"), [({"max_products": 5}, ["strada"]), ({"page_size": 50}, [])]
)
def test_a_catalog_read_with_another_search_in_the_launchpad_is_still_due(
    instance: dg.DagsterInstance,
    shops: Sandbox,
    tmp_path: Path,
    config: dict[str, Any],
    due: list[str],
) -> None:
    octogen = od.OctogenResource(
        api_key=shops.api_key,
        base_url=shops.base_url,
        catalog_source=Listed(CatalogState("strada", last_indexed_at=NOON)),
    )
    instance.add_dynamic_partitions(str(od.catalog_partitions.name), ["strada"])
    snapshots = od.ParquetSnapshotIOManager(base_dir=str(tmp_path))
    for options in ({}, config):  # the first run reads the asset's own search
        assert dg.materialize(
            [PRODUCTS],
            instance=instance,
            partition_key="strada",
            resources={"octogen": octogen, "io_manager": snapshots},
            run_config={"ops": {"products": {"config": {**options, "accept_shrinking": True}}}},
        ).success
        assert requested(instance, octogen) == (due if options else [])


def test_days_of_an_asset_that_was_wiped_are_a_fresh_start(instance: dg.DagsterInstance) -> None:
    source = Listed(CatalogState("acme", last_indexed_at=NOON))
    for key in ("acme", "zen"):
        materialize(instance, f"{key}|2026-11-24", NOON)
    first = evaluate(instance, source, DAYS)
    assert isinstance(first, dg.SensorResult)
    assert not first.run_requests
    instance.wipe_assets([DAYS.key])
    wiped = evaluate(instance, source, DAYS, first.cursor)
    assert isinstance(wiped, dg.SensorResult)
    assert wiped.run_requests
    for _ in range(3):
        materialize(instance, "zen|2026-11-25", NOON)
    assert requested(instance, source, DAYS, cursor=first.cursor) == ["acme|2026-11-25"]
    materialize(instance, "acme|2026-11-25", NOON)
    assert requested(instance, source, DAYS, cursor=wiped.cursor) == []


def test_an_event_that_became_visible_late_is_read(instance: dg.DagsterInstance) -> None:
    source = Listed(CatalogState("acme", last_indexed_at=NOON))
    with dg.DagsterInstance.ephemeral() as before:
        for partition in ("of another transaction|2026-11-24", "zen|2026-11-24"):
            materialize(before, partition, NOON)
        result = evaluate(before, source, DAYS)
    assert isinstance(result, dg.SensorResult)
    assert result.run_requests
    for partition in ("acme|2026-11-24", "zen|2026-11-24", "zen|2026-11-25"):
        materialize(instance, partition, NOON)
    assert requested(instance, source, DAYS, cursor=result.cursor) == []


def test_many_new_catalogs_come_in_turn_and_the_log_says_so(
    instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    source = Listed(*(CatalogState(f"shop-{number:04}") for number in range(2_100)))
    result = evaluate(instance, source)
    assert isinstance(result, dg.SensorResult)
    assert len(result.run_requests or ()) == 50
    (added,) = result.dynamic_partitions_requests or ()
    assert len(added.partition_keys) == 2_000
    assert "2,050 more partitions need a run or wait for a retry" in capfd.readouterr().err


def test_awkward_keys_are_partitions_and_one_that_cannot_be_is_logged(
    instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    source = Listed(CatalogState("../x, y"), CatalogState(" "))
    assert requested(instance, source) == [catalog_partition_key("../x, y")]
    assert "Skipped catalog ' '. A catalog key must not be empty." in capfd.readouterr().err


def test_nothing_due_says_so_and_what_was_wiped_is_due_again(instance: dg.DagsterInstance) -> None:
    source = Listed(CatalogState("acme", last_indexed_at=NOON))
    materialize(instance, "acme", NOON)
    result = evaluate(instance, source)
    assert isinstance(result, dg.SensorResult)
    assert result.skip_reason == dg.SkipReason("No catalog was re-indexed (1 listed).")
    assert not result.dynamic_partitions_requests
    instance.wipe_assets([PRODUCTS.key])
    assert requested(instance, source) == ["acme"]


@pytest.mark.parametrize("asset", [PRODUCTS, DAYS], ids=["catalogs", "days"])
def test_a_catalog_whose_partition_was_deleted_is_requested_with_it(
    instance: dg.DagsterInstance, asset: dg.AssetsDefinition
) -> None:
    source = Listed(CatalogState("acme", last_indexed_at=NOON))
    materialize(instance, "acme|2026-11-24" if asset is DAYS else "acme", NOON)
    assert requested(instance, source, asset) == []
    instance.delete_dynamic_partition("octogen_catalogs", "acme")
    result = evaluate(instance, source, asset)
    assert isinstance(result, dg.SensorResult)
    assert len(result.run_requests or ()) == 1
    assert [each.partition_keys for each in result.dynamic_partitions_requests or ()] == [["acme"]]


@pytest.mark.parametrize(
    "error",
    [
        OctogenAuthenticationError("Refused.", httpx.Response(401)),
        OctogenInsufficientCreditError("Refused.", httpx.Response(402)),
        OctogenForbiddenError("Refused.", httpx.Response(403)),
        OctogenNotFoundError("Refused.", httpx.Response(404)),
        ValueError("Refused."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_lasts_fails_the_tick(instance: dg.DagsterInstance, error: Exception) -> None:
    with pytest.raises(dg.Failure) as caught:
        evaluate(instance, Listed(error=error))
    assert str(caught.value) == "Could not list catalogs. Refused."
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OctogenRateLimitError("Busy.", httpx.Response(429)), "; the next tick tries again. Busy."),
        (OctogenServerError("Busy.", httpx.Response(503)), "; the next tick tries again. Busy."),
        (
            od.OctogenError("Silent."),
            ", and the third tick in a row without a response fails. Silent.",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_that_may_pass_skips_the_tick(
    instance: dg.DagsterInstance, error: Exception, text: str
) -> None:
    result = evaluate(instance, Listed(error=error))
    assert isinstance(result, dg.SkipReason)
    assert (result.skip_message or "").startswith("Could not list catalogs; the next")
    assert (result.skip_message or "").endswith(text)


def test_without_a_key_the_tick_fails_and_says_what_to_do(
    shops: Sandbox, instance: dg.DagsterInstance
) -> None:
    with pytest.raises(dg.Failure, match="Set OCTOGEN_PLATFORM_API_KEY"):
        evaluate(instance, od.OctogenResource(base_url=shops.base_url))


def test_the_asset_must_have_dynamic_partitions() -> None:
    with pytest.raises(ValueError, match="Asset 'plain' must have a DynamicPartitionsDefinition"):
        od.build_catalog_sensor(od.build_products_asset("plain"))


def test_an_asset_whose_snapshots_have_no_version_is_refused() -> None:
    @dg.asset(partitions_def=od.catalog_partitions)
    def mine() -> None: ...

    with pytest.raises(ValueError, match=r"Asset 'mine' was not built by build_products_asset"):
        od.build_catalog_sensor(mine)


def test_the_sensor_has_the_name_the_interval_and_the_other_arguments_it_is_given() -> None:
    sensor = od.build_catalog_sensor(
        PRODUCTS, name="shops", minimum_interval_seconds=60, tags={"team": "data"}
    )
    assert (sensor.name, sensor.minimum_interval_seconds) == ("shops", 60)
    assert sensor.tags["team"] == "data"
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED


@pytest.mark.parametrize(("arguments", "deadline"), [({}, 30), ({"deadline": 5}, 5)])
def test_the_list_has_half_of_a_ticks_time(
    instance: dg.DagsterInstance, arguments: dict[str, Any], deadline: float
) -> None:
    class Deadlines(od.CatalogSource):
        seen: ClassVar[list[float]] = []

        async def fetch(self, client: od.OctogenClient) -> CatalogList:
            self.seen.append(client.deadline)
            return CatalogList([])

    evaluate(instance, od.OctogenResource(api_key="key", catalog_source=Deadlines(), **arguments))
    assert Deadlines.seen == [deadline]


class Endless(od.CatalogSource):
    """A source whose requests never end."""

    async def fetch(self, client: od.OctogenClient) -> CatalogList:
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize(
    "source",
    [
        od.GrantedCatalogs(),
        od.ShopCatalogs([f"shop-{number}.example" for number in range(40)]),
        Endless(),
    ],
    ids=lambda source: type(source).__name__,
)
def test_a_tick_ends_in_time_with_any_server_and_so_do_its_threads(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, source: od.CatalogSource
) -> None:
    module = "octogen_dagster.products.catalog_sensor"
    monkeypatch.setattr(f"{module}.LISTING_TIMEOUT", 0.5)
    monkeypatch.setattr(f"{module}._MAX_LISTING_SECONDS", 0.6)
    before = set(threading.enumerate())
    slow = b"HTTP/1.1 200 OK\r\nx-slow: "
    with RawServer(lambda _: itertools.chain([slow], dripping(lambda: server))) as server:
        octogen = od.OctogenResource(api_key="key", base_url=server.base_url, catalog_source=source)
        skipped = evaluate(instance, octogen)
        assert not server.closing.is_set()
    assert isinstance(skipped, dg.SkipReason)
    assert "the third tick in a row without a response fails. " in (skipped.skip_message or "")
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive()
