"""build_url_list_sensor: request runs for URL list exports and their downstream assets."""

import time
from collections.abc import Callable, Sequence
from typing import Any

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
from octogen_dagster.printable import count
from octogen_dagster.products.catalog_sensor import service_of_a_tick
from octogen_dagster.url_lists.export import last_exported_at, version_of
from octogen_dagster.url_lists.list_asset import LIST_NAME, name_of_list
from octogen_dagster.url_lists.sync import live_url_lists


def build_url_list_sensor(
    assets: dg.AssetsDefinition | Sequence[dg.AssetsDefinition],
    *,
    name: str = "octogen_url_list_sensor",
    minimum_interval_seconds: int = 900,
    resource_key: str = RESOURCE,
    _clock: Callable[[], float] = time.time,
    **sensor_arguments: Any,
) -> dg.SensorDefinition:
    """Build a sensor that requests runs for URL list exports and their downstream assets.

    Octogen exports lists once a day. Each tick reads all lists with one free request. It requests a
    run for each list whose `lastExportedAt` differs from the latest materialization of the export
    asset. It also requests a run if a downstream asset is older than this materialization. Failed
    runs are requested again after 10 minutes, then after 20 minutes and so on, up to every 6 hours.
    Lists that do not exist or have not been exported yet are excluded. If the service does not
    respond, the tick is skipped or fails as in `build_catalog_sensor`.

    The sensor has no cursor. It compares export times with the data versions of materializations,
    and it finds its previous requests by the run tag `octogen/request`.

    Args:
        assets: One or more assets built by `build_url_list_export_asset`. After each export asset,
            list the downstream assets to run together with it, such as assets built by
            `build_linked_snapshot_asset` and `build_url_matches_asset`.
        name: The sensor's name.
        minimum_interval_seconds: Minimum seconds between ticks.
        resource_key: The resource key of the `OctogenResource`.
        sensor_arguments: Any other argument for `@dagster.sensor`.

    Raises:
        TypeError: `assets` contains something other than an asset.
        ValueError: `assets` contains no export, or contains an asset that is not downstream of an
            earlier asset.
    """
    given = [assets] if isinstance(assets, dg.AssetsDefinition | dg.AssetKey) else list(assets)
    names, runs = _by_export(given)
    arguments = {
        "description": "Requests a URL list's export asset and its downstream assets each time "
        "Octogen exports the list.",
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
        **_: Any,  # resources, if a test calls the sensor directly
    ) -> dg.SensorResult | dg.SkipReason:
        now, instance = _clock(), context.instance
        busy = {
            key
            for key, keys in runs.items()
            if any(read_busy(instance, asset, now) for asset in keys)
        }
        try:
            octogen = getattr(context.resources, resource_key)
            with BlockingClient(service_of_a_tick(octogen)) as client:
                lists = {each.name: each for each in live_url_lists(client)}
        except (OctogenError, ValueError) as error:
            return skip_or_fail(context, name, "The URL lists could not be read", error)
        wanted = [
            Wanted(key, version_of(exported_at), exported_at.timestamp())
            for key, list_name in names.items()
            if list_name in lists
            if (exported_at := last_exported_at(lists[list_name])) is not None
        ]
        done = {key: read for key, keys in runs.items() if (read := _read(instance, keys))}
        return request_assets(
            context,
            runs,
            wanted=wanted,
            done=done,
            busy=busy,
            now=now,
            nothing_due=f"No new export for {count(len(names), 'URL list')}.",
        )

    return url_list_sensor


def _by_export(
    assets: Sequence[dg.AssetsDefinition],
) -> tuple[dict[str, str], dict[str, list[dg.AssetKey]]]:
    """Return two mappings by export asset: the URL lists' names, and the assets to request."""
    names, runs = dict[str, str](), dict[str, list[dg.AssetKey]]()
    for each in assets:
        require_asset(each, "assets")
        key = each.key.to_user_string()
        if LIST_NAME in each.metadata_by_key.get(each.key, {}):
            names[key], runs[key] = name_of_list(each), [each.key]
            continue
        upstream = [run for run in runs.values() if not {*each.dependency_keys}.isdisjoint(run)]
        if not upstream:
            raise ValueError(
                f"Asset {key} in `assets` is not downstream of an earlier asset. Pass each asset "
                "built by build_url_list_export_asset before its downstream assets."
            )
        for run in upstream:
            run.append(each.key)
    if not names:
        raise ValueError("assets must include an asset built by build_url_list_export_asset.")
    return names, runs


def _read(instance: dg.DagsterInstance, assets: Sequence[dg.AssetKey]) -> str | None:
    """Return the export's data version if all downstream assets are up to date, otherwise None."""
    records: list[dg.EventLogRecord] = []
    for asset in assets:
        found = instance.fetch_materializations(asset, limit=1).records
        if not found or (records and found[0].storage_id < records[0].storage_id):
            return None
        records.append(found[0])
    event = records[0].asset_materialization
    return ((event and event.tags) or {}).get(DATA_VERSION_TAG)
