"""build_products_asset: snapshot products over the REST API."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import dagster as dg
from pydantic import BaseModel, ValidationError

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.catalog_sources import CatalogService, GrantedCatalogs
from octogen_dagster.api.catalog_states import CatalogState
from octogen_dagster.api.responses import CATALOG_NOT_FOUND
from octogen_dagster.api.search import ProductSearch, checked_search, describe_search
from octogen_dagster.assets.definition import (
    ACCEPT_SHRINKING,
    ACCEPT_SHRINKING_CONFIG,
    RESOURCE,
    RETRY_POLICY,
    asset_arguments_of,
)
from octogen_dagster.errors import OctogenError
from octogen_dagster.frames.products import PRODUCTS_KIND
from octogen_dagster.frames.source import MIN_ROWS_PERCENT, is_within, utc_now
from octogen_dagster.printable import printable
from octogen_dagster.products.resource import require_catalog_source
from octogen_dagster.reading.plan import list_for
from octogen_dagster.reading.scan import ProductScan
from octogen_dagster.reading.statistics import ScanStatistics
from octogen_dagster.snapshots.asset_decorator import SnapshotRun, snapshot_asset
from octogen_dagster.snapshots.metadata import SEARCH
from octogen_dagster.snapshots.partitions import ADDS_PARTITIONS, PartitionLayout, catalog_of
from octogen_dagster.validation import did_you_mean, require_percent

_MAX_NAMED_CATALOGS = 20


def build_products_asset(
    name: str | dg.AssetSpec,
    search: ProductSearch | Mapping[str, Any] | None = None,
    partitions_def: dg.PartitionsDefinition[str] | None = None,
    *,
    min_rows_percent: float = MIN_ROWS_PERCENT,
    resource_key: str = RESOURCE,
    _clock: Callable[[], datetime] = utc_now,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset that snapshots a search, or one whole catalog per partition.

    The search becomes the default run configuration, so you can change it in the launchpad for a
    single run. For the columns, see `octogen_dagster.schemas.PRODUCT_SCHEMA`.

    Octogen charges $0.014 for each page of 100 products, or $140 for a catalog with a million
    products. Octogen does not charge for reads of a catalog that it shares in BigQuery: see
    `build_linked_products_asset`.

    Args:
        name: The asset's name or `dagster.AssetSpec`. The builder's defaults apply to attributes
            that the spec does not set. To make a catalogs asset upstream, pass it as `deps` here,
            not in the spec.
        search: The search, or a mapping with its fields. Defaults to all catalogs in the
            resource's `catalog_source`.
        partitions_def: Partitions by catalog (`catalog_partitions`), by time (`snapshot_days`) or
            by both (`catalog_days`). A catalog's partition reads only that catalog. Past times are
            rejected, because the service has current data only.
        min_rows_percent: The minimum size for a snapshot of whole catalogs, as a percentage of the
            previous snapshot's row count. A run that reads fewer rows, or none, fails and keeps the
            previous snapshot. To accept a smaller snapshot for one run, set
            `accept_shrinking: true` in the run configuration. 0 disables the limit. The limit does
            not apply to searches with filters or `max_products`.
        resource_key: The `OctogenResource`'s key. Change it to use more than one resource.
        asset_arguments: Any other argument for `@dagster.asset`, such as `pool`, `kinds`,
            `group_name`, `owners`, `tags`, `description`. `deps=[catalogs]` shows a
            `build_catalogs_asset` asset upstream. The catalogs asset triggers automation conditions
            for new partitions only. The default `retry_policy` retries a failed run three times,
            after 10, 30 and 70 seconds. Errors that a retry cannot fix (status 401, 402, 403, 404
            or 422, or an exhausted budget) are never retried. With a `backfill_policy`, a run reads
            several partitions and publishes, checks, reports and retries each one separately.
            Downstream assets are not built in the same run.

    Raises:
        ValueError: The search contains `catalogs` although each partition is a catalog, the time
            partitions do not include the current time, the two dimensions are not a catalog and a
            time, or `min_rows_percent` is not between 0 and 100.
        pydantic.ValidationError: The mapping is not a valid search.
    """
    given = asset_arguments_of(name, asset_arguments)
    spec_partitions = given.pop("partitions_def", None)
    partitions_def = spec_partitions if partitions_def is None else partitions_def
    default = checked_search(search)
    partitions = PartitionLayout(partitions_def)
    require_percent("min_rows_percent", min_rows_percent)
    _check_partitions(given["name"], partitions, default)

    @snapshot_asset(
        {
            "partitions_def": partitions_def,
            "config_schema": {
                **search_config(default, catalogs=partitions.catalogs is None),
                ACCEPT_SHRINKING: ACCEPT_SHRINKING_CONFIG,
            },
            "description": _description(default, partitions),
            "metadata": {SEARCH: dg.MetadataValue.json(default.as_json())},
            "retry_policy": RETRY_POLICY,
            "required_resource_keys": {resource_key},
        },
        _ignore_catalogs_assets(given),
        resource_key=resource_key,
        kind=PRODUCTS_KIND,
    )
    def products(
        run: SnapshotRun[CatalogService], partition: str | None
    ) -> dg.MaterializeResult[Any]:
        search, accepts_shrinking = _configured_search(run)
        is_default = search.model_copy(update={"page_size": default.page_size}) == default
        read = _PartitionRead(run, search, partitions, partition)
        is_present = read.window is None or is_within(read.window, _clock())
        catalogs = read.require_catalogs() if is_present else None
        scan = ProductScan(
            read.search,
            read.service,
            read.report,
            list_catalogs=lambda: catalogs,
            requests_before=read.requests,
            window=read.window,
            min_rows_percent=0.0 if accepts_shrinking else min_rows_percent,
            explain=read.explain,
            clock=_clock,
        )
        # Only the asset's default search counts as a snapshot for the sensor.
        version = read.data_version(catalogs or ()) if is_default else None
        return dg.MaterializeResult(value=scan, data_version=version)

    if isinstance(partitions.catalogs, dg.DynamicPartitionsDefinition):
        require_catalog_source(products, resource_key)
    return products


def _check_partitions(name: str, partitions: PartitionLayout, search: ProductSearch) -> None:
    if partitions.catalogs is not None and search.catalogs:
        raise ValueError(
            f"Each partition of asset {name!r} is a catalog, so the search cannot contain "
            "`catalogs`. Remove `catalogs` from the search."
        )
    if partitions.times is not None and partitions.times.end_offset < 1:
        raise ValueError(
            f"The time partitions of asset {name!r} do not include the current time, but the "
            "service has current data only. Set end_offset=1, or use octogen_dagster.snapshot_days "
            "or catalog_days."
        )


def _configured_search(run: SnapshotRun[CatalogService]) -> tuple[ProductSearch, bool]:
    """Return the search and the `accept_shrinking` setting from the run configuration."""
    config = dict(run.context.op_execution_context.op_config)
    accepts_shrinking = config.pop(ACCEPT_SHRINKING)
    try:
        return ProductSearch.model_validate(config), accepts_shrinking
    except ValidationError as error:
        raise dg.Failure(
            f"The search in the run configuration is invalid: {error}\nCorrect the run "
            "configuration and rerun.",
            allow_retries=False,
        ) from None


def _description(search: ProductSearch, partitions: PartitionLayout) -> str:
    found = describe_search(search, of=None if partitions.catalogs is None else "each catalog")
    if partitions.times is not None:
        found += ", with a snapshot for each time"
    return (
        f"{found[0].upper()}{found[1:]}. Each row is a product with its title, brand, prices, "
        "stock, categories and images. Each run reads all products and replaces the entire "
        "snapshot."
    )


class _PartitionRead:
    """Prepares the read for one partition, or for an asset without partitions."""

    requests = 0
    """Number of requests sent to list the catalogs. All partitions in a run share the list."""

    def __init__(
        self,
        run: SnapshotRun[CatalogService],
        search: ProductSearch,
        partitions: PartitionLayout,
        partition: str | None,
    ) -> None:
        self.service = run.service
        self.search = search
        self.window = self._key = None
        self._run = run
        self._catalog_partitions = partitions.catalogs
        if partition is not None:
            self.window = partitions.window(partition)
            self._key = partitions.catalog_key(partition)
        if self._key:
            _require_partition(run.context, partitions.catalogs, self._key)
            self.search = search.model_copy(update={"catalogs": [catalog_of(self._key)]})

    @property
    def catalog(self) -> str | None:
        """The only catalog in the search, or None if the search reads several or all catalogs."""
        return self.search.catalogs[0] if len(self.search.catalogs) == 1 else None

    def data_version(self, catalogs: Iterable[CatalogState]) -> dg.DataVersion | None:
        """Return the catalog's version, or None for a search with several catalogs.

        `catalogs` was listed before the read, so that the sensor notices if the catalog is
        re-indexed during the run.
        """
        versions = {state.catalog: state.version for state in catalogs}
        version = versions.get(self.catalog or "")
        return dg.DataVersion(version) if version else None

    def list_catalogs(self) -> Sequence[CatalogState] | None:
        warn = self.service.log.warn  # once in a run
        # Count this listing's requests separately.
        service = replace(self.service, spending=self.service.spending.part())
        try:
            with BlockingClient(service, self._run.stop) as client:
                return list_for(self.search, service, client, warn, is_of_run=True)
        finally:
            self.requests += service.spending.requests

    def require_catalogs(self) -> Sequence[CatalogState] | None:
        """Fail before the read if the API key has no access to a catalog in the search.

        Only `GrantedCatalogs` lists what the key has access to. If another source does not list a
        catalog, this is only logged.
        """
        catalogs, source = self.list_catalogs(), self.service.catalog_source
        keys = {state.catalog for state in catalogs or ()}
        missing = [key for key in self.search.catalogs if key not in keys]
        if catalogs is None or not missing:
            return catalogs
        if isinstance(source, GrantedCatalogs):
            named = ", ".join(sorted(keys)[:_MAX_NAMED_CATALOGS]) or "none"
            if len(keys) > _MAX_NAMED_CATALOGS:
                named += f" and {len(keys) - _MAX_NAMED_CATALOGS:,} more"
            raise self._withdrawn(
                missing[0],
                f"Catalog {missing[0]!r} is not granted to the API key. Granted catalogs: "
                f"{printable(named)}. Ask Octogen for access, or correct the partition key or the "
                "search.",
            )
        self._run.context.log.info(
            f"{source!r} does not list catalog {missing[0]!r}. Requesting it anyway."
            f"{did_you_mean(missing[0], keys)}"
        )
        return catalogs

    def explain(self, error: OctogenError) -> Exception | None:
        """Return a permanent error if the catalog might have been withdrawn, otherwise None."""
        is_withdrawn = getattr(error, "detail", CATALOG_NOT_FOUND) == CATALOG_NOT_FOUND
        return self._withdrawn(self.catalog, str(error)) if is_withdrawn and self.catalog else None

    def _withdrawn(self, catalog: str, reason: str) -> dg.Failure:
        listed = [state.catalog for state in self.list_catalogs() or ()]
        text = reason + did_you_mean(catalog, listed)
        if self._key is not None:
            text += _advice_on_partition(self._catalog_partitions, self._key)
        return dg.Failure(text, allow_retries=False)

    def report(self, statistics: ScanStatistics) -> None:
        context = self._run.context
        # Materializations have the metrics, and one log line per catalog would cost CPU.
        if not (statistics.complete and context.has_partition_key_range):
            context.log.info(statistics.progress())
        if statistics.complete and not statistics.rows:
            subject = f"Catalog {self.catalog!r}" if self.catalog else "The search"
            context.log.warning(
                f"{subject} returned no products. Check the filters and the API key's access."
            )


def _ignore_catalogs_assets(asset_arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Make the automation condition ignore the catalogs assets in `deps`.

    A new list of catalogs adds partitions, but does not require new snapshots.
    """
    lists = [
        key
        for dep in asset_arguments.get("deps") or ()
        if isinstance(dep, dg.AssetsDefinition)
        for key, metadata in dep.metadata_by_key.items()
        if ADDS_PARTITIONS in metadata
    ]
    ignore = getattr(asset_arguments.get("automation_condition"), "ignore", None)
    if not lists or ignore is None:
        return asset_arguments
    return {**asset_arguments, "automation_condition": ignore(dg.AssetSelection.assets(*lists))}


def _require_partition(
    context: dg.AssetExecutionContext, catalogs: dg.PartitionsDefinition[Any] | None, key: str
) -> None:
    """Fail before the read if the partition was deleted while the run was queued."""
    if (
        isinstance(catalogs, dg.DynamicPartitionsDefinition)
        and catalogs.name
        and not context.instance.has_dynamic_partition(catalogs.name, key)
    ):
        raise dg.Failure(
            f"Partition {key!r} of {context.asset_key.to_user_string()} was deleted while this run "
            "was queued. Nothing was read, and any existing snapshot is kept. Add the partition "
            "again and materialize it, or wait for the catalog sensor to add it the next time "
            "Octogen indexes the catalog.",
            allow_retries=False,
        )


def _advice_on_partition(catalogs: dg.PartitionsDefinition[Any] | None, key: str) -> str:
    if not isinstance(catalogs, dg.DynamicPartitionsDefinition):
        return ""
    return (
        ' If the partition key is mistyped, delete the partition: click "Delete partitions" on the '
        "asset's page, or call "
        f"DagsterInstance.get().delete_dynamic_partition({catalogs.name!r}, {key!r}). After the "
        "deletion, Dagster cannot show the Automation tab for downstream assets until you add the "
        "partition again. Schedules request the partition until you delete it, but sensors never "
        "request it."
    )


def search_config(search: ProductSearch, *, catalogs: bool = True) -> dict[str, dg.Field]:
    """Return run configuration fields whose defaults are the values in `search`."""
    values = search.model_dump(mode="json")
    return {
        name: dg.Field(
            _config_type(field.annotation),
            default_value=values[name],
            is_required=False,
            description=field.description,
        )
        for name, field in ProductSearch.model_fields.items()
        if catalogs or name != "catalogs"
    }


def _config_type(annotation: Any) -> Any:
    """Convert a field's type annotation to a Dagster configuration type."""
    if get_origin(annotation) is Annotated:  # the model checks the limits
        annotation = get_args(annotation)[0]
    inner = [each for each in get_args(annotation) if each is not NoneType]
    if get_origin(annotation) is list:
        return [_config_type(inner[0])]
    if NoneType in get_args(annotation):
        return dg.Noneable(_config_type(inner[0]))
    if issubclass(annotation, BaseModel):
        fields = annotation.model_fields.items()
        return {name: _config_type(field.annotation) for name, field in fields}
    return annotation
