"""The sensor that requests the export of each URL list that was exported anew, and what follows."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.assets.definition import RESOURCE, require_asset
from octogen_dagster.assets.latest import DATA_VERSION_TAG
from octogen_dagster.assets.ticks import (
    Wanted,
    read_busy,
    request_assets,
    skip_or_fail,
)
from octogen_dagster.errors import OctogenError
from octogen_dagster.products.catalog_sensor import service_of_a_tick
from octogen_dagster.url_lists.export import last_exported_at, version_of
from octogen_dagster.url_lists.list_asset import LIST_NAME, name_of_list
from octogen_dagster.url_lists.sync import live_url_lists

if TYPE_CHECKING:
    from octogen_dagster.api.url_lists import CoverageUrlList
    from octogen_dagster.products.resource import OctogenResource


def build_url_list_sensor(
    assets: dg.AssetsDefinition | Sequence[dg.AssetsDefinition],
    *,
    name: str = "octogen_url_list_sensor",
    minimum_interval_seconds: int = 900,
    resource_key: str = RESOURCE,
    _clock: Callable[[], float] = time.time,
    **sensor_arguments: Any,
) -> dg.SensorDefinition:
    """A sensor that requests the export of each URL list when there is one, and what follows it.

    Octogen exports lists once a day. A tick lists them, in one request that is not charged, and
    requests a run for each whose `lastExportedAt` is not that of the last materialization of its
    export, or whose export an asset that follows it has not followed. A run that failed is
    requested again after 10 minutes, then 20, up to 6 hours. A list that is not there, or was not
    exported yet, is left out. If the service does not answer, the tick is skipped or fails as in
    `build_catalog_sensor`.

    The sensor has no memory of its own. The time of the export is the data version of a
    materialization, and what was requested are the runs with the tag `octogen/request`.

    Args:
        assets: One or several assets of `build_url_list_export_asset`, each followed by the assets
            that are made from it and belong into its run, such as those of
            `build_linked_snapshot_asset` and `build_url_matches_asset`.
        name: The sensor's name.
        minimum_interval_seconds: Seconds between two ticks.
        resource_key: The key of the `OctogenResource`.
        sensor_arguments: Any other argument of `@dagster.sensor`.

    Raises:
        TypeError: Something else than an asset is given.
        ValueError: There is no export, or an asset is made from none that is before it.
    """
    given = [assets] if isinstance(assets, dg.AssetsDefinition | dg.AssetKey) else list(assets)
    names, runs = _by_export(given)
    arguments = {
        "description": "Requests the export of each URL list, and what follows it, that Octogen "
        "has exported since it was read.",
        **sensor_arguments,
    }

    @dg.sensor(
        name=name,
        target=given,
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
            for key, keys in runs.items()
            if any(read_busy(instance, asset, now) for asset in keys)
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
        done = {key: read for key, keys in runs.items() if (read := _read(instance, keys))}
        return request_assets(
            context,
            runs,
            wanted=wanted,
            done=done,
            busy=busy,
            now=now,
            nothing_due=f"No list was exported anew, of {len(names):,}.",
        )

    return url_list_sensor


def _by_export(
    assets: Sequence[dg.AssetsDefinition],
) -> tuple[dict[str, str], dict[str, list[dg.AssetKey]]]:
    """The names of lists, and the assets of a run with the export first, by the export's key."""
    names, runs = dict[str, str](), dict[str, list[dg.AssetKey]]()
    for each in assets:
        require_asset(each, "assets")
        key = each.key.to_user_string()
        if LIST_NAME in each.metadata_by_key.get(each.key, {}):
            names[key], runs[key] = name_of_list(each), [each.key]
            continue
        followed = [run for run in runs.values() if not {*each.dependency_keys}.isdisjoint(run)]
        if not followed:
            raise ValueError(
                f"assets: {key} is made from none of those before it. Give an asset of "
                "build_url_list_export_asset first, and then what follows it."
            )
        for run in followed:
            run.append(each.key)
    if not names:
        raise ValueError("assets must have an asset of build_url_list_export_asset at least.")
    return names, runs


def _read_lists(octogen: "OctogenResource") -> "dict[str, CoverageUrlList]":
    """Read the live lists, by name."""
    with BlockingClient(service_of_a_tick(octogen)) as client:
        return {each.name: each for each in live_url_lists(client)}


def _read(instance: dg.DagsterInstance, assets: Sequence[dg.AssetKey]) -> str | None:
    """The data version of an export that all of the assets behind it have followed; None else."""
    records: list[dg.EventLogRecord] = []
    for asset in assets:
        found = instance.fetch_materializations(asset, limit=1).records
        if not found or (records and found[0].storage_id < records[0].storage_id):
            return None
        records.append(found[0])
    event = records[0].asset_materialization
    return ((event and event.tags) or {}).get(DATA_VERSION_TAG)
