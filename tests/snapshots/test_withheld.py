"""Partitions of catalogs that cannot be read: what their runs say, and who requests them again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from octogen_dagster import (
    ProductSearch,
    catalog_days,
    catalog_partitions,
)
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.snapshots.assets import ProductsAsset
from octogen_dagster.snapshots.catalog_sensor import CatalogSensor
from octogen_dagster.snapshots.partitions import SnapshotPartitions
from octogen_dagster.snapshots.schedules import SnapshotSchedule
from octogen_dagster.snapshots.withheld import withheld_catalogs
from tests.results import failure

pytestmark = pytest.mark.slow

NOON = datetime(2026, 3, 4, 12, tzinfo=timezone.utc)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance on disk: a schedule's context makes its own from a reference to it."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as stored:
        yield stored


class Catalogs:
    """A products asset of catalogs, with its schedule."""

    def __init__(
        self, resources: dict[str, Any], instance: dg.DagsterInstance, partitions_def: Any
    ) -> None:
        self.partitions_def = partitions_def
        self.products = ProductsAsset(
            "products", ProductSearch(), partitions_def, clock=lambda: NOON
        ).definition(retry_policy=None)
        self.resources = resources
        self.instance = instance

    def materialize(self, catalog: str) -> dg.ExecuteInProcessResult:
        """Read the partition of a catalog, today's if there are days."""
        return dg.materialize(
            [self.products],
            resources=self.resources,
            instance=self.instance,
            partition_key=SnapshotPartitions(self.partitions_def).key(catalog, NOON),
            raise_on_error=False,
        )

    def scheduled(self) -> list[str]:
        """The catalogs that a tick requests."""
        schedule = SnapshotSchedule(self.products, clock=lambda: NOON).definition(
            name="snapshots", cron_schedule="@daily"
        )
        context = dg.build_schedule_context(
            instance=self.instance,
            scheduled_execution_time=NOON,
            repository_def=dg.Definitions(
                assets=[self.products], schedules=[schedule], resources=self.resources
            ).get_repository_def(),
        )
        requests = schedule.evaluate_tick(context).run_requests or ()
        return [str(request.partition_key).split("|")[0] for request in requests]

    def tick_sensor(self, cursor: str | None) -> str | None:
        """Store the observations of a tick of the sensor, and return its cursor."""
        octogen = self.resources["octogen"]
        result = CatalogSensor(self.products, clock=lambda: NOON).definition()(
            dg.build_sensor_context(self.instance, cursor=cursor, resources={"octogen": octogen})
        )
        assert isinstance(result, dg.SensorResult)
        for event in result.asset_events:
            assert isinstance(event, dg.AssetObservation)
            self.instance.report_runless_asset_event(event)
        return result.cursor


@pytest.fixture(params=["catalogs", "days"])
def catalogs(
    request: pytest.FixtureRequest, resources: dict[str, Any], instance: dg.DagsterInstance
) -> Catalogs:
    """Two catalogs that are granted, and one whose key is mistyped."""
    instance.add_dynamic_partitions("octogen_catalogs", ["northpeak", "strada", "strda"])
    by_day = request.param == "days"
    return Catalogs(
        resources, instance, catalog_days("2026-03-01") if by_day else catalog_partitions
    )


def test_a_mistyped_partition_fails_with_what_is_meant_and_how_to_delete_it(
    catalogs: Catalogs, shops: Sandbox
) -> None:
    message = failure(catalogs.materialize("strda")).strip()
    assert message.endswith(
        "Catalog 'strda' is not granted to this key. Granted: northpeak, strada. Ask Octogen for "
        "access or correct the partition key or the search. Did you mean 'strada'? A partition "
        'that is mistyped stays until you delete it: "Delete partitions" on the page of the '
        "asset, or DagsterInstance.get().delete_dynamic_partition('octogen_catalogs', 'strda'). "
        "Schedules leave it out until it has a snapshot."
    )
    assert [request.path for request in shops.requests] == ["/catalogs"]


def test_a_schedule_leaves_a_mistyped_partition_out(
    catalogs: Catalogs, capfd: pytest.CaptureFixture[str]
) -> None:
    assert catalogs.scheduled() == ["northpeak", "strada", "strda"]
    catalogs.materialize("strda")
    assert catalogs.scheduled() == ["northpeak", "strada"]
    assert (
        "1 catalogs are left out, because they could not be read and have no snapshot since: "
        "strda. Delete the partitions of those that are mistyped, and materialize the others."
    ) in capfd.readouterr().err


def test_a_catalog_that_is_granted_later_is_scheduled_again_after_a_snapshot(
    catalogs: Catalogs, shops: Sandbox
) -> None:
    catalogs.materialize("strda")
    shops.grant("strda", products=3)
    assert catalogs.materialize("strda").success
    assert "strda" in catalogs.scheduled()


def test_a_catalog_that_had_a_snapshot_is_scheduled_although_it_fails(
    catalogs: Catalogs, shops: Sandbox
) -> None:
    assert catalogs.materialize("strada").success
    shops.revoke("strada")
    message = failure(catalogs.materialize("strada"))
    assert "Catalog 'strada' is not granted" in message
    assert "leave it out" not in message
    assert "strada" in catalogs.scheduled()


def test_a_catalog_that_the_sensor_reported_as_gone_is_not_scheduled(
    catalogs: Catalogs, shops: Sandbox
) -> None:
    assert catalogs.materialize("strada").success
    cursor = catalogs.tick_sensor(None)
    shops.revoke("strada")
    catalogs.tick_sensor(cursor)
    assert catalogs.scheduled() == ["northpeak", "strda"]


def test_observations_of_others_and_keys_of_other_partitions_withhold_nothing(
    instance: dg.DagsterInstance,
) -> None:
    products = dg.AssetKey("products")
    for partition, metadata in (
        ("acme", {"octogen/granted": False}),  # the asset had no days then
        ("zen|2026-03-04", {"octogen/granted": True}),
        ("nord|2026-03-04", {"checked": False}),
        (None, {"octogen/granted": False}),
    ):
        instance.report_runless_asset_event(
            dg.AssetObservation(products, partition=partition, metadata=metadata)
        )
    partitions = SnapshotPartitions(catalog_days("2026-03-01"))
    assert withheld_catalogs(instance, products, partitions) == set()


def test_a_partition_that_nobody_can_delete_is_not_said_to_be(
    resources: dict[str, Any], instance: dg.DagsterInstance
) -> None:
    message = failure(
        Catalogs(resources, instance, dg.StaticPartitionsDefinition(["strda"])).materialize("strda")
    )
    assert "Did you mean 'strada'?" in message
    assert "Delete partitions" not in message
