"""The builder of the export of a URL list: a linked dataset, as that of a catalog is."""

from collections.abc import Iterator, Sequence
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
    replace_revoked: bool = False,
    grant_waits: Sequence[float] = GRANT_WAIT_SECONDS,
    max_age: timedelta | None = timedelta(days=2),
    resource_key: str = RESOURCE,
    hub_resource_key: str = "analytics_hub",
    control_plane_resource_key: str = "octogen_control_plane",
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset: the linked dataset of what Octogen exports of a URL list.

    Octogen joins a list with all of its catalogs once a day, and shares the result over BigQuery
    Analytics Hub, for nothing. A materialization subscribes the project of the resource
    `analytics_hub` to the list's listing, or finds that it is subscribed, as that of
    `build_linked_datasets_asset` does. Its data version is the time of the last export, which is
    also in the metadata, as `octogen/exported_at`.

    The dataset has two views, of which `build_linked_snapshot_asset` makes snapshots:
    `products_current_v1` and `url_coverage_v1`. `build_linked_products_asset` describes the
    products where they are. A list that was not exported yet is no failure: the run reports an
    observation and no materialization, and what is downstream in it is not executed.

    The check `fresh` warns if the list was not exported lately. The asset needs `OctogenResource`
    as `octogen` and `AnalyticsHubResource` as `analytics_hub`.

    Args:
        url_list: An asset of `build_url_list_asset`.
        name: The asset's name or `dagster.AssetSpec`; by default `<url_list>_export`.
        listing_project: The project of the list's listing.
        listing_location: The location of the list's listing.
        dataset_id: The id of the linked dataset; by default `octogen_<listing id>`.
        control_plane: Register the subscriber with Octogen, which grants listings to registered
            subscribers; needs `OctogenControlPlaneResource` as `octogen_control_plane`.
        replace_revoked: As in `build_linked_datasets_asset`.
        grant_waits: Seconds to wait for a grant before each further attempt of the same run.
        max_age: The maximum age of the export; None leaves the check `fresh` out.
        resource_key: The key of the `OctogenResource`.
        hub_resource_key: The key of the `AnalyticsHubResource`.
        control_plane_resource_key: The key of the `OctogenControlPlaneResource`.
        asset_arguments: Any other argument of `@dagster.asset`.

    Raises:
        TypeError: url_list is not an asset.
        ValueError: url_list is not an asset of `build_url_list_asset`, the age is out of range, or
            the listing's project or location is malformed.
        MissingPackageError: The packages of the extra `bigquery`, or with `control_plane` those of
            `mcp`, are not installed.
    """
    require_url_list(url_list)
    extras = ("bigquery", "mcp") if control_plane else ("bigquery",)
    require_extras("build_url_list_export_asset", *extras)
    require_max_age(max_age)

    def listing(exchange: str, listing: str) -> ListingName:
        name = ListingName(listing_project, listing_location, exchange, listing)
        return ListingName.parse(str(name))

    listing("exchange", "listing")  # refuses a project or location that is malformed
    given = asset_arguments_of(name or f"{url_list.key.path[-1]}_export", asset_arguments)
    checks = []
    if max_age is not None:
        description = f"The list was exported in the last {hours(max_age):g} hours."
        checks.append(dg.AssetCheckSpec(FRESH, asset=asset_key(given), description=description))
    list_name = name_of_list(url_list)

    @octogen_asset(
        {
            "deps": [url_list],
            "pool": None,
            "kinds": {"octogen", "bigquery"},
            "metadata": {LIST_NAME: list_name},
            "check_specs": checks,
            "output_required": False,  # a list that was not exported has none
            "description": f"The linked dataset of Octogen's daily export of the URL list "
            f"{list_name!r}.",
            "retry_policy": dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL),
            "required_resource_keys": {resource_key, hub_resource_key}
            | ({control_plane_resource_key} if control_plane else set()),
        },
        given,
    )
    def export(context: dg.AssetExecutionContext) -> Iterator[Any]:
        state = _read_list(context, url_list.key, getattr(context.resources, resource_key))
        exported_at, place = last_exported_at(state), state.big_query
        metadata: Metadata = {
            LIST_ID: state.url_list_id,
            LIST_NAME: state.name,
            "octogen/status": state.status,
        }
        if exported_at is None or place is None:
            context.log.info(f"{_NOT_EXPORTED}. What is there of an earlier list stays as it is.")
            yield dg.AssetObservation(
                context.asset_key, description=f"{_NOT_EXPORTED}.", metadata=metadata
            )
        else:
            with waiting_for_grant(context, grant_waits):
                metadata |= link_dataset(
                    context,
                    listing(place.exchange_id, place.listing_id),
                    dataset_id,
                    getattr(context.resources, hub_resource_key),
                    getattr(context.resources, control_plane_resource_key)
                    if control_plane
                    else None,
                    with_octogen=register_and_subscribe,
                    replace_revoked=replace_revoked,
                )
            metadata[EXPORT_TIME] = dg.MetadataValue.timestamp(exported_at)
            version = dg.DataVersion(version_of(exported_at))
            yield dg.MaterializeResult(metadata=metadata, data_version=version)
        if max_age is not None:
            yield _freshness(exported_at, state.created_at, max_age)

    return export


def last_exported_at(state: "CoverageUrlList") -> datetime | None:
    """When the service says that a list was exported; None if it has not been."""
    return None if state.big_query is None else state.big_query.last_exported_at


def version_of(exported_at: datetime) -> str:
    """The data version of an export."""
    return exported_at.isoformat()


def _read_list(
    context: dg.AssetExecutionContext, url_list: dg.AssetKey, octogen: Any
) -> "CoverageUrlList":
    """Ask the service for the list that the asset of the list made or found."""
    asset = url_list.to_user_string()
    list_id = reported_value(last_materialization(context, url_list), LIST_ID)
    if list_id is None:
        raise dg.Failure(
            f"{asset}: no URL list is known. Its last materialization says which one it is, as "
            f"{LIST_ID}, and there is none. Materialize {asset} first.",
            allow_retries=False,
        )
    with permanent_errors_fail():
        try:
            state: CoverageUrlList = octogen.get_coverage_url_list(str(list_id))
        except OctogenUrlListNotFoundError as error:
            raise error.with_message(
                f"{asset}: URL list {list_id!r} is gone, or is not of the organisation of this "
                f"key. Materialize {asset}, which makes the list anew if it is not there."
            ) from error
    if state.status == DELETE_PENDING:
        raise dg.Failure(
            f"URL list {state.name!r} ({state.url_list_id}) is being deleted, with its data. "
            f"Nothing was read. Materialize {asset}, which makes another list.",
            allow_retries=False,
        )
    return state


def _freshness(
    exported_at: datetime | None, created_at: datetime | None, max_age: timedelta
) -> dg.AssetCheckResult:
    """The result of the check `fresh`: a list that is never exported is not fresh either."""
    since = exported_at or created_at
    age = None if since is None else age_of(since)
    description = f"{_NOT_EXPORTED}."
    if age is not None:
        event = "exported" if exported_at else "made"
        description = (
            f"The list was {event} {hours(age):g} hours ago"
            f"{'' if exported_at else ' and is not exported yet'}; {hours(max_age):g} are allowed."
        )
    return dg.AssetCheckResult(
        passed=age is None or age <= max_age,
        check_name=FRESH,
        severity=dg.AssetCheckSeverity.WARN,
        description=description,
        metadata={} if age is None else {"octogen/age_hours": hours(age)},
    )
