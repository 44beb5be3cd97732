"""build_url_list_export_asset: subscribe to a URL list's daily export in BigQuery."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from octogen_dagster.assets.definition import (
    FRESH,
    RESOURCE,
    Metadata,
    asset_arguments_of,
    asset_key,
    hours,
    octogen_asset,
    permanent_errors_fail,
    require_max_age,
)
from octogen_dagster.bigquery.linked_datasets import (
    GRANT_WAIT_SECONDS,
    link_dataset,
    waiting_for_grant,
)
from octogen_dagster.bigquery.table_checks import age_of
from octogen_dagster.bigquery.tables import EXPORT_TIME, last_materialization, reported_value
from octogen_dagster.errors import OctogenUrlListNotFoundError
from octogen_dagster.sharing.autosubscribe import register_and_subscribe
from octogen_dagster.sharing.names import ListingName
from octogen_dagster.url_lists.list_asset import (
    LIST_ID,
    LIST_NAME,
    name_of_list,
    require_url_list,
)
from octogen_dagster.url_lists.sync import DELETE_PENDING
from octogen_dagster.validation import require_extras

if TYPE_CHECKING:
    from octogen_dagster.api.url_lists import CoverageUrlList

PROJECT = "octogen-catalog-exchange"
LOCATION = "US"
_NOT_EXPORTED = "Octogen has not exported the list yet"


def build_url_list_export_asset(
    url_list: dg.AssetsDefinition,
    *,
    name: str | dg.AssetSpec | None = None,
    listing_project: str = PROJECT,
    listing_location: str = LOCATION,
    dataset_id: str | None = None,
    control_plane: bool = False,
    grant_waits: Sequence[float] = GRANT_WAIT_SECONDS,
    max_age: timedelta | None = timedelta(days=2),
    resource_key: str = RESOURCE,
    hub_resource_key: str = "analytics_hub",
    control_plane_resource_key: str = "octogen_control_plane",
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset for the linked BigQuery dataset that contains a URL list's daily export.

    Once a day, Octogen matches the list with all catalogs and shares the result through BigQuery
    Analytics Hub for free. A materialization subscribes the `analytics_hub` resource's project to
    the list's listing. If the project is already subscribed, the existing subscription is reported.
    The data version is the time of the latest export, which is also reported as
    `octogen/exported_at`.

    The dataset has two views, `products_current_v1` and `url_coverage_v1`. Read them with
    `build_linked_snapshot_asset`, or describe the products without copying them with
    `build_linked_products_asset`. If a list has not been exported yet, the run succeeds. It reports
    an observation instead of a materialization and skips downstream assets.

    The `fresh` check warns if the latest export is too old. The asset requires an `OctogenResource`
    and an `AnalyticsHubResource` with the resource keys `octogen` and `analytics_hub`.

    Args:
        url_list: An asset built by `build_url_list_asset`.
        name: The asset's name or `dagster.AssetSpec`. Defaults to `<url_list>_export`.
        listing_project: The listing's project.
        listing_location: The listing's location.
        dataset_id: The linked dataset's id. Defaults to `octogen_<listing id>`.
        control_plane: Register the subscriber with Octogen, because Octogen grants listings only to
            registered subscribers. Requires an `OctogenControlPlaneResource` with the resource key
            `octogen_control_plane`.
        grant_waits: Seconds to wait before each new attempt while Octogen's grant is missing.
        max_age: Maximum age of the export; None omits the `fresh` check.
        resource_key: The resource key of the `OctogenResource`.
        hub_resource_key: The resource key of the `AnalyticsHubResource`.
        control_plane_resource_key: The resource key of the `OctogenControlPlaneResource`.
        asset_arguments: Any other argument for `@dagster.asset`.

    Raises:
        TypeError: `url_list` is not an asset.
        ValueError: `url_list` was not built by `build_url_list_asset`, `max_age` is not positive,
            or the listing's project or location is malformed.
        MissingPackageError: The extra `bigquery` is not installed, or `control_plane` is true and
            the extra `mcp` is not installed.
    """
    require_url_list(url_list)
    extras, resource_keys = ["bigquery"], {resource_key, hub_resource_key}
    if control_plane:
        extras.append("mcp")
        resource_keys.add(control_plane_resource_key)
    require_extras("build_url_list_export_asset", *extras)
    require_max_age(max_age)
    listing = _listings_in(listing_project, listing_location)
    given = asset_arguments_of(name or f"{url_list.key.path[-1]}_export", asset_arguments)
    list_name = name_of_list(url_list)

    @octogen_asset(
        {
            "deps": [url_list],
            "pool": None,
            "kinds": {"octogen", "bigquery"},
            "metadata": {LIST_NAME: list_name},
            "check_specs": _check_specs(asset_key(given), max_age),
            "output_required": False,  # a list that has not been exported is not materialized
            "description": f"The linked dataset with the daily export of URL list {list_name!r}.",
            "retry_policy": dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL),
            "required_resource_keys": resource_keys,
        },
        given,
    )
    def export(context: dg.AssetExecutionContext) -> Iterator[Any]:
        resources = context.resources
        state = _read_list(context, url_list.key, getattr(resources, resource_key))
        exported_at, place = last_exported_at(state), state.big_query
        if exported_at is None or place is None:
            yield _not_exported(context, state)
        else:
            with waiting_for_grant(context, grant_waits):
                linked = link_dataset(
                    context,
                    listing(place.exchange_id, place.listing_id),
                    dataset_id,
                    getattr(resources, hub_resource_key),
                    getattr(resources, control_plane_resource_key) if control_plane else None,
                    with_octogen=register_and_subscribe,
                )
            yield _exported(state, exported_at, linked)
        yield from _check_freshness(exported_at, state.created_at, max_age)

    return export


def last_exported_at(state: "CoverageUrlList") -> datetime | None:
    """Return the time of a list's latest export, or None before the first export."""
    return None if state.big_query is None else state.big_query.last_exported_at


def version_of(exported_at: datetime) -> str:
    return exported_at.isoformat()


def _listings_in(project: str, location: str) -> Callable[[str, str], ListingName]:
    """Return a function that builds a listing's name from an exchange id and a listing id."""

    def listing(exchange_id: str, listing_id: str) -> ListingName:
        return ListingName.parse(str(ListingName(project, location, exchange_id, listing_id)))

    listing("exchange", "listing")  # rejects a malformed project or location
    return listing


def _check_specs(key: dg.AssetKey, max_age: timedelta | None) -> list[dg.AssetCheckSpec]:
    if max_age is None:
        return []
    description = f"The list was exported within the last {hours(max_age):g} hours."
    return [dg.AssetCheckSpec(FRESH, asset=key, description=description)]


def _read_list(
    context: dg.AssetExecutionContext, url_list: dg.AssetKey, octogen: Any
) -> "CoverageUrlList":
    """Fetch the URL list that the upstream asset reported."""
    asset = url_list.to_user_string()
    list_id = reported_value(last_materialization(context, url_list), LIST_ID)
    if list_id is None:
        raise dg.Failure(
            f"Asset {asset} has not reported the id of a URL list ({LIST_ID}). Materialize this "
            "asset first.",
            allow_retries=False,
        )
    with permanent_errors_fail():
        try:
            state: CoverageUrlList = octogen.get_coverage_url_list(str(list_id))
        except OctogenUrlListNotFoundError as error:
            raise error.with_message(
                f"URL list {list_id!r} was deleted, or the API key belongs to another "
                f"organization. Materialize {asset} to create the list again."
            ) from error
    if state.status == DELETE_PENDING:
        raise dg.Failure(
            f"URL list {state.name!r} ({state.url_list_id}) and its data are being deleted. "
            f"The export was not read. Materialize {asset} to create a new list.",
            allow_retries=False,
        )
    return state


def _metadata(state: "CoverageUrlList") -> Metadata:
    return {LIST_ID: state.url_list_id, LIST_NAME: state.name, "octogen/status": state.status}


def _not_exported(
    context: dg.AssetExecutionContext, state: "CoverageUrlList"
) -> dg.AssetObservation:
    context.log.info(f"{_NOT_EXPORTED}. If an earlier list was exported, its data is kept.")
    return dg.AssetObservation(
        context.asset_key, description=f"{_NOT_EXPORTED}.", metadata=_metadata(state)
    )


def _exported(
    state: "CoverageUrlList", exported_at: datetime, linked: Metadata
) -> dg.MaterializeResult[Any]:
    metadata = _metadata(state) | linked
    metadata[EXPORT_TIME] = dg.MetadataValue.timestamp(exported_at)
    return dg.MaterializeResult(
        metadata=metadata, data_version=dg.DataVersion(version_of(exported_at))
    )


def _check_freshness(
    exported_at: datetime | None, created_at: datetime | None, max_age: timedelta | None
) -> Iterator[dg.AssetCheckResult]:
    """Yield the result of the `fresh` check.

    Before the first export, the list's creation time is used.
    """
    if max_age is None:
        return
    since = exported_at or created_at
    age = None if since is None else age_of(since)
    description = f"{_NOT_EXPORTED}."
    if age is not None:
        event = "exported" if exported_at else "created"
        description = (
            f"The list was {event} {hours(age):g} hours "
            f"ago{'' if exported_at else ' and has not been exported yet'}; the maximum is "
            f"{hours(max_age):g} hours."
        )
    yield dg.AssetCheckResult(
        passed=age is None or age <= max_age,
        check_name=FRESH,
        severity=dg.AssetCheckSeverity.WARN,
        description=description,
        metadata={} if age is None else {"octogen/age_hours": hours(age)},
    )
