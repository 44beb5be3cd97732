"""The factory of products assets."""

from collections.abc import Callable, Mapping, Sequence
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
    """Build an asset: the products of a search, or of a whole catalog in each partition.

    The search is the default of the run configuration, so it can be changed in the launchpad for
    one run. The columns are those of `octogen_dagster.schemas.PRODUCT_SCHEMA`.

    Each page of a hundred products is charged: $0.014, so $140 for a catalog of a million. A
    catalog that Octogen shares over BigQuery is read there at no charge by Octogen: see
    `build_linked_products_asset`.

    Args:
        name: The asset's name or `dagster.AssetSpec`. What a spec leaves unset is the builder's
            own; pass a list of catalogs as `deps`, which knows more of it than a spec does.
        search: What to read, or a mapping of the search's fields; by default all catalogs of the
            resource's source.
        partitions_def: Partitions by catalog (`catalog_partitions`), by time (`snapshot_days`) or
            by both (`catalog_days`). In a partition of a catalog the search reads only that
            catalog. A past time is refused, because the service knows only the present.
        min_rows_percent: The smallest snapshot of whole catalogs that is published, in percent of
            the rows of the one that it replaces. With fewer rows, or none, the run fails and the
            snapshot there stays; `accept_shrinking: true` in the run configuration accepts it for
            one run. 0 publishes any snapshot. A search with filters or `max_products` may find any
            number of products.
        resource_key: The key of the `OctogenResource`; give another one to read with two of them.
        asset_arguments: Any other argument of `@dagster.asset`, such as `pool`, `kinds`,
            `group_name`, `owners`, `tags`, `description`. `deps=[catalogs]` shows an asset of
            `build_catalogs_asset` upstream; no automation condition requests a run because of it,
            except of partitions that are new. The default `retry_policy` retries a
            failed run three times, after 10, 30 and 70 seconds. An error that a retry cannot fix
            (status 401, 402, 403, 404 or 422, or a budget that is spent) is never retried. With a
            `backfill_policy` a run reads several partitions: each is published, checked, reported
            and retried by itself, and nothing that follows is made in the same run.

    Raises:
        ValueError: The search names catalogs although each partition is a catalog; the partitions
            are of times that do not include the present, or of two dimensions other than a catalog
            and a time; or `min_rows_percent` is not from 0 to 100. A
            mapping that is no search is a pydantic.ValidationError, which names the field.
    """
    given = asset_arguments_of(name, asset_arguments)
    of_spec = given.pop("partitions_def", None)
    partitions_def = of_spec if partitions_def is None else partitions_def
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
        _unmoved_by_catalogs(given),
        resource_key=resource_key,
        kind=PRODUCTS_KIND,
    )
    def products(
        run: SnapshotRun[CatalogService], partition: str | None
    ) -> dg.MaterializeResult[Any]:
        config = dict(run.context.op_execution_context.op_config)
        percent = 0.0 if config.pop(ACCEPT_SHRINKING) else min_rows_percent
        try:
            search = ProductSearch.model_validate(config)
        except ValidationError as error:
            raise dg.Failure(
                f"The search in the run configuration is invalid: {error}\nCorrect the run "
                "configuration and start the run again.",
                allow_retries=False,
            ) from None
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
            min_rows_percent=percent,
            explain=read.explain,
            clock=_clock,
        )
        # The sensor wants a catalog as the asset's own search reads it. If it is indexed again
        # during the run, the list of the sensor has a newer version than this one.
        versions = {state.catalog: state.version for state in catalogs or () if is_default}
        version = versions.get(read.catalog or "")
        return dg.MaterializeResult(
            value=scan, data_version=dg.DataVersion(version) if version else None
        )

    if isinstance(partitions.catalogs, dg.DynamicPartitionsDefinition):
        require_catalog_source(products, resource_key)
    return products


def _check_partitions(name: str, partitions: PartitionLayout, search: ProductSearch) -> None:
    if partitions.catalogs is not None and search.catalogs:
        raise ValueError(
            f"Asset {name!r}: each partition is a catalog, so the search must not name "
            "catalogs. Remove `catalogs` from the search."
        )
    if partitions.times is not None and partitions.times.end_offset < 1:
        raise ValueError(
            f"Asset {name!r}: its time partitions do not include the present, and the service "
            "knows only the present. Set end_offset=1, or use octogen_dagster.snapshot_days "
            "or catalog_days."
        )


def _description(search: ProductSearch, partitions: PartitionLayout) -> str:
    found = describe_search(search, of=None if partitions.catalogs is None else "each catalog")
    if partitions.times is not None:
        found += ", as they were at each time"
    return (
        f"{found[0].upper()}{found[1:]}. A row is a product, with its title, brand, prices, "
        "stock, categories and images. A run reads them all and replaces the snapshot as a "
        "whole."
    )


class _PartitionRead:
    """The read of a partition, or of an asset without any.

    Catalogs are granted as far as is known, and the partitions of a run share a list of them.
    `requests` are those that this one has sent for it.
    """

    requests = 0

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
        """The only catalog of the search; None if there are several, or all are read."""
        return self.search.catalogs[0] if len(self.search.catalogs) == 1 else None

    def list_catalogs(self) -> Sequence[CatalogState] | None:
        log = self.service.log

        def warn(line: str) -> None:  # once in a run
            log.say(line, line)

        # A part counts the requests of this list alone.
        service = replace(self.service, spending=self.service.spending.part())
        try:
            with BlockingClient(service, self._run.stop) as client:
                return list_for(self.search, service, client, warn, is_of_run=True)
        finally:
            self.requests += service.spending.requests

    def require_catalogs(self) -> Sequence[CatalogState] | None:
        """Fail before the read if a catalog of the search is not granted to the key.

        Other sources than the list of the granted catalogs do not say what the key may read.
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
                f"Catalog {missing[0]!r} is not granted to this key. Granted: {printable(named)}. "
                "Ask Octogen for access or correct the partition key or the search.",
            )
        self._run.context.log.info(
            f"Catalog {missing[0]!r} is not among those of {source!r}. The service is asked for it "
            f"all the same.{did_you_mean(missing[0], keys)}"
        )
        return catalogs

    def explain(self, error: OctogenError) -> Exception | None:
        """Return the error to raise in place of one that may say that the catalog is withdrawn."""
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
        # A materialization has the metrics, and a line for each of many catalogs costs CPU.
        if not (statistics.complete and context.has_partition_key_range):
            context.log.info(statistics.progress())
        if statistics.complete and not statistics.rows:
            subject = f"Catalog {self.catalog!r}" if self.catalog else "The search"
            context.log.warning(
                f"{subject} found no products. Check its filters, or the API key's access."
            )


def _unmoved_by_catalogs(asset_arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Keep an automation condition from requesting each catalog after each list of catalogs.

    The list is upstream for its partitions alone: it says nothing about the products.
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
    """Fail the run before it reads if its partition was deleted while it was queued."""
    if (
        isinstance(catalogs, dg.DynamicPartitionsDefinition)
        and catalogs.name
        and not context.instance.has_dynamic_partition(catalogs.name, key)
    ):
        raise dg.Failure(
            f"Partition {key!r} of {context.asset_key.to_user_string()} no longer exists: it was "
            "deleted while this run was queued. Nothing was read, and its snapshot, if there is "
            "one, is kept. Add the partition again and materialize it; the catalog sensor adds it "
            "when the catalog is next indexed.",
            allow_retries=False,
        )


def _advice_on_partition(catalogs: dg.PartitionsDefinition[Any] | None, key: str) -> str:
    if not isinstance(catalogs, dg.DynamicPartitionsDefinition):
        return ""
    return (
        " A partition that is mistyped may stay: a schedule requests it, and a sensor does not. "
        "Dagster fails to show the Automation tab of an asset behind it once you delete it, until "
        'you add its key again: use "Delete partitions" on the page of the asset, or '
        f"DagsterInstance.get().delete_dynamic_partition({catalogs.name!r}, {key!r})."
    )


def search_config(search: ProductSearch, *, catalogs: bool = True) -> dict[str, dg.Field]:
    """Build the run configuration of a search, with its values as defaults."""
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
    """Return the type of Dagster's configuration for the type of a field."""
    if get_origin(annotation) is Annotated:  # limits, which the model checks
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
