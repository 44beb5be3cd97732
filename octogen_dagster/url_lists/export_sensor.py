"""The sensor that requests the coverage and the products of each list that was exported anew."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import dagster as dg

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.assets.definition import RESOURCE
from octogen_dagster.assets.ticks import (
    DATA_VERSION_TAG,
    Wanted,
    read_busy,
    request_assets,
    skip_or_fail,
)
from octogen_dagster.errors import OctogenError
from octogen_dagster.products.catalog_sensor import service_of_a_tick
from octogen_dagster.url_lists.coverage import UrlCoverage
from octogen_dagster.url_lists.export import last_exported_at, version_of
from octogen_dagster.url_lists.list_asset import name_of_list
from octogen_dagster.url_lists.sync import live_url_lists

if TYPE_CHECKING:
    from octogen_dagster.api.url_lists import CoverageUrlList
    from octogen_dagster.products.resource import OctogenResource


def build_url_list_sensor(
    coverages: UrlCoverage | Sequence[UrlCoverage],
    *,
    name: str = "octogen_url_list_sensor",
    minimum_interval_seconds: int = 900,
    resource_key: str = RESOURCE,
    _clock: Callable[[], float] = time.time,
    **sensor_arguments: Any,
) -> dg.SensorDefinition:
    """A sensor that requests the coverage and the products of each URL list when it was exported.

    Octogen exports lists once a day. A tick lists them, in one request that is not charged, and
    requests a run for each whose `lastExportedAt` is not that of the last materializations. A run
    that failed is requested again after 10 minutes, then 20, up to 6 hours. A list that is not
    there, or was not exported yet, is left out. If the service does not answer, the tick is
    skipped or fails as in `build_catalog_sensor`.

    The sensor has no memory of its own. The time of the export is the data version of a
    materialization, and what was requested are the runs with the tag `octogen/request`.

    Args:
        coverages: What `build_url_coverage_asset` returned for a list, or for each of several.
        name: The sensor's name.
        minimum_interval_seconds: Seconds between two ticks.
        resource_key: The key of the `OctogenResource`.
        sensor_arguments: Any other argument of `@dagster.sensor`.

    Raises:
        TypeError: Something else than `build_url_coverage_asset` returns is given.
        ValueError: There is no list.
    """
    is_one = isinstance(coverages, UrlCoverage | dg.AssetsDefinition | dg.AssetKey)
    of_lists = cast("list[UrlCoverage]", [coverages] if is_one else list(coverages))
    for each in of_lists:
        if not isinstance(each, UrlCoverage):
            raise TypeError(
                f"coverages must be what build_url_coverage_asset returns, not {each!r}: keep its "
                "two assets together, as in `covered = build_url_coverage_asset(url_list)`."
            )
    if not of_lists:
        raise ValueError("coverages must have the assets of a list at least.")
    assets = {
        each.coverage.key.to_user_string(): (each.coverage.key, each.products.key)
        for each in of_lists
    }
    names = {each.coverage.key.to_user_string(): name_of_list(each.coverage) for each in of_lists}
    arguments = {
        "description": "Requests the coverage and the products of each URL list that Octogen has "
        "exported since they were read.",
        **sensor_arguments,
    }

    @dg.sensor(
        name=name,
        target=[asset for each in of_lists for asset in each],
        minimum_interval_seconds=minimum_interval_seconds,
        required_resource_keys={resource_key},
        **arguments,
    )
    def url_list_sensor(
        context: dg.SensorEvaluationContext,
        **_: Any,  # the resources, if the sensor is called directly, as tests do
    ) -> dg.SensorResult | dg.SkipReason:
        now, instance = _clock(), context.instance
        busy = {
            key
            for key, both in assets.items()
            if any(read_busy(instance, asset, now) for asset in both)
        }
        try:
            lists = _read_lists(getattr(context.resources, resource_key))
        except (OctogenError, ValueError) as error:
            return skip_or_fail(context, name, "The URL lists could not be listed", error)
        wanted = [
            Wanted(key, version_of(exported_at), exported_at.timestamp())
            for key, list_of in names.items()
            if list_of in lists
            if (exported_at := last_exported_at(lists[list_of])) is not None
        ]
        done = {key: read for key, both in assets.items() if (read := _read(instance, both))}
        return request_assets(
            context,
            assets,
            wanted=wanted,
            done=done,
            busy=busy,
            now=now,
            nothing_due=f"No list was exported anew, of {len(names):,}.",
        )

    return url_list_sensor


def _read_lists(octogen: "OctogenResource") -> "dict[str, CoverageUrlList]":
    """Read the live lists, by name."""
    with BlockingClient(service_of_a_tick(octogen)) as client:
        return {each.name: each for each in live_url_lists(client)}


def _read(instance: dg.DagsterInstance, assets: Sequence[dg.AssetKey]) -> str | None:
    """The data version that the last materializations of assets share; None without one."""
    versions = set()
    for asset in assets:
        records = instance.fetch_materializations(asset, limit=1).records
        event = records[0].asset_materialization if records else None
        versions.add(((event and event.tags) or {}).get(DATA_VERSION_TAG))
    return versions.pop() if len(versions) == 1 else None
