"""Asset settings in YAML, with checks for missing and contradictory fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal, Self

import dagster as dg
from dagster.components import AssetAttributesModel
from dagster.components.utils.translation import TranslationFn, TranslationFnResolver
from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    ValidationInfo,
    create_model,
    model_validator,
)

import octogen_dagster as od
from octogen_dagster.alerts.rules import KINDS, AlertRule, PriceListRule, check_rule_names
from octogen_dagster.api.search import ProductSearch
from octogen_dagster.components.alert_settings import Rule
from octogen_dagster.components.notify_settings import Notify
from octogen_dagster.components.table_settings import TableSettings
from octogen_dagster.components.templates import Unrendered
from octogen_dagster.components.yaml_model import (
    Duration,
    YamlComponent,
    YamlModel,
    switch,
    text_for,
)
from octogen_dagster.validation import (
    checked_name,
    checked_timezone,
    name_mistakes,
    require_percent,
)

Kind = Literal[
    "catalogs", "products", "changes", "details", "brands", "history", "alerts", "position",
    "price_list_history", "price_list_alerts", "linked_datasets", "linked_products",
    "linked_snapshot",
    "linked_history", "url_list", "url_export", "url_coverage", "url_offers", "url_matches",
    "table",
]  # fmt: skip


@dataclass(frozen=True)
class OctogenAssetData:
    """The asset data that the component passes to `get_asset_spec` and `translation`.

    Attributes:
        kind: The asset's kind.
        spec: The asset's key, partitions, automation condition and IO manager. All other fields,
            such as the description, are not set yet.
        search: The search, if this is a products asset; otherwise None.
    """

    kind: Kind
    spec: dg.AssetSpec
    search: ProductSearch | None = None


_VALIDATORS: dict[str, Any] = {"name_mistakes": model_validator(mode="wrap")(name_mistakes)}
_ASSET_ATTRIBUTES = create_model(
    "Translation", __base__=AssetAttributesModel, __validators__=_VALIDATORS
)
_TRANSLATIONS = TranslationFnResolver[OctogenAssetData](lambda data: {"data": data})


def _translation(value: Any) -> Any:
    """Return the function that applies a `translation` from YAML."""
    if not isinstance(value, Unrendered) or value.attributes is None:
        return None if isinstance(value, Unrendered) else value
    attributes = value.attributes
    if not isinstance(attributes, str):  # a template variable of the project can be a function
        attributes = _ASSET_ATTRIBUTES.model_validate(attributes)
    return _TRANSLATIONS.fn.callable(value.context, attributes)


Translation = Annotated[
    TranslationFn[OctogenAssetData] | None,
    PlainValidator(_translation, json_schema_input_type=AssetAttributesModel | str),
]


def _check_cron(cron: str) -> str:
    try:
        dg.ScheduleDefinition(job_name="job", cron_schedule=cron)
    except dg.DagsterInvalidDefinitionError:
        raise ValueError(
            f"{cron!r} is not a cron schedule. Write five fields, such as 0 6 * * *, or a name "
            "such as @daily."
        ) from None
    return cron


def _check_percent(percent: float, info: ValidationInfo) -> float:
    require_percent(str(info.field_name), percent)
    return percent


def _severity(name: str) -> dg.AssetCheckSeverity:
    # From Python 3.13 on, pydantic does not take the class itself, whose signature is `*values`.
    return dg.AssetCheckSeverity(name)


Name = Annotated[str, AfterValidator(checked_name)]
Cron = Annotated[str, AfterValidator(_check_cron)]
Timezone = Annotated[str, AfterValidator(checked_timezone)]
Percent = Annotated[float, AfterValidator(_check_percent)]
Severity = Annotated[Literal["ERROR", "WARN"], AfterValidator(_severity)]


class AssetSettings(YamlModel):
    """Settings for any asset."""

    name: Name | None = None
    """The asset's name."""
    translation: Translation = None
    """Changes to fields in the asset spec: `owners`, `tags`, `kinds`, `group_name`, `key`,
    `key_prefix`, `description`, `metadata`, `automation_condition`, `freshness_policy`, `deps` or
    `code_version`. Templates can use `spec` and `data`."""


class DetailsSettings(AssetSettings):
    """Settings for product details.

    Each lookup is charged, so details do not run automatically unless you set an automation
    condition.
    """

    only_changed: bool = False
    """Look up only new products and products whose listing changed."""
    max_failed_percent: Percent = 5
    """Maximum percentage of failed lookups."""


class PositionSettings(AssetSettings):
    """Settings for the price position."""

    price_list: str
    """The asset key of your price list, which has the columns `sku`, `product_url`, `price` and
    `currency`.
    """
    undercut_percent: Percent = 50
    """Maximum percentage of matched price-list rows in which a competitor is below your price."""
    unmatched_percent: Percent = 20
    """Maximum percentage of price-list rows without a match."""


class CheckSettings(YamlModel):
    """Settings for the checks, with the fields and defaults of `build_snapshot_checks`.

    `null` omits a check.
    """

    max_age: Duration | None = Field(default="2 days", validate_default=True)
    """Maximum age of a catalog's latest snapshot for the `fresh` check, such as `36 hours`."""
    max_rows_change_percent: float | None = 30
    """Maximum change in the row count, as a percentage of the median row count in recent snapshots.
    """
    max_null_percent: dict[str, float] | None = Field(
        default={"product_url": 0.0, "title": 20.0, "current_price": 20.0}
    )
    """Maximum percentage of nulls, by column."""
    max_bad_price_percent: float | None = 0.1
    """Maximum percentage of products with a bad price."""
    price_outlier_ratio: float = 100.0
    """Maximum ratio of a price to the median price. A price is bad if it is above the median times
    this ratio, or below the median divided by this ratio."""
    exclude: list[str] = Field(default_factory=list)
    """Checks to omit."""
    blocking: bool = False
    """If true, a failed check stops the downstream assets in the same run."""
    severity: Severity = "ERROR"
    """Severity of a failed check."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        from octogen_dagster.checks.snapshot_checks import check_names, names_of_checks
        from octogen_dagster.position.table import UNDERCUT, UNMATCHED

        products = od.build_products_asset("products")
        # The builder checks the values.
        od.build_snapshot_checks(products, **self.arguments_of(products))
        history = od.build_product_history_asset(products)
        known = [
            *names_of_checks(products),
            *names_of_checks(history),
            UNDERCUT,
            UNMATCHED,
        ]
        check_names(self.exclude, dict.fromkeys([*known, *KINDS]))
        return self

    def arguments_of(self, asset: dg.AssetsDefinition) -> dict[str, Any]:
        """Return the arguments for `build_snapshot_checks`.

        Names of checks that the asset does not have are removed from `exclude`.
        """
        from octogen_dagster.checks.snapshot_checks import names_of_checks

        arguments, known = self.arguments(), names_of_checks(asset)
        return arguments | {"exclude": [name for name in self.exclude if name in known]}


class ScheduleSettings(YamlModel):
    """Settings for a schedule."""

    cron_schedule: Cron
    """Five cron fields, or a name such as `@daily`."""
    execution_timezone: Timezone = "UTC"
    """The schedule's IANA time zone."""
    running: bool = False
    """Start the schedule with its first deployment."""

    def arguments(self) -> dict[str, Any]:
        status = dg.DefaultScheduleStatus("RUNNING" if self.running else "STOPPED")
        when = {name: getattr(self, name) for name in ("cron_schedule", "execution_timezone")}
        return when | {"default_status": status}


class SensorSettings(YamlModel):
    """Settings for a sensor."""

    running: bool = False
    """Start the sensor with its first deployment."""
    minimum_interval_seconds: int = Field(default=300, gt=0)
    """Minimum time between two ticks, in seconds."""

    def arguments(self) -> dict[str, Any]:
        status = dg.DefaultSensorStatus("RUNNING" if self.running else "STOPPED")
        seconds = self.minimum_interval_seconds
        return {"minimum_interval_seconds": seconds, "default_status": status}


Schedule = Annotated[
    ScheduleSettings | None, text_for(ScheduleSettings, lambda text: {"cron_schedule": text})
]
Sensor = Annotated[
    SensorSettings | None, switch(SensorSettings, running=SensorSettings(running=True))
]
Asset = Annotated[AssetSettings | None, switch(AssetSettings)]


class SearchSettings(AssetSettings):
    """Settings for a search (or for whole catalogs) and for its downstream assets."""

    name: Name
    """Name of the products asset."""
    search: Annotated[ProductSearch, text_for(ProductSearch, lambda text: {"q": text})] = Field(
        default_factory=ProductSearch
    )
    """The search: a mapping, or a string for `q`. By default, whole catalogs are read."""
    partitions: Literal["none", "catalog", "snapshot_days", "catalog_days"] = "none"
    """Partition by catalog, by day, or by both."""
    start_date: date | None = None
    """The first daily partition, such as `2026-11-25`. Required for daily partitions."""
    timezone: Timezone = "UTC"
    """IANA time zone that determines when a day begins."""
    catalogs_per_run: int = Field(default=25, ge=1)
    """Maximum number of catalogs per run, for catalog partitions.

    A run covers only consecutive partitions, in the order in which the partitions were added.
    """
    min_rows_percent: Percent = 50
    """Minimum number of rows in a snapshot, as a percentage of the previous snapshot's row count.
    """
    sensor: Sensor = None
    """Sensor for new and re-indexed catalogs. `true` (the default for catalog partitions) adds the
    sensor in a stopped state. `running` also starts it with the first deployment. `false` adds no
    sensor."""
    schedule: Schedule = None
    """The schedule: a mapping, or a string for `cron_schedule`."""
    changes: Asset = None
    """Products that appeared, disappeared or changed. If a snapshot contains no changes, the
    asset keeps its rows. `changes` also adds a `history`."""
    details: Annotated[DetailsSettings | None, switch(DetailsSettings)] = None
    """Full details for each product. Octogen charges for each lookup."""
    brands: Asset = None
    """Product counts and prices by brand."""
    history: Asset = None
    """Each product's prices and availability since its first snapshot."""
    alerts: list[Rule] = Field(default_factory=list)
    """Alert rules. Requires `history`."""
    notify: Notify = None
    """Recipients of alerts: a mapping, or a string for the dotted path of a function."""
    position: PositionSettings | None = None
    """Your price list compared with competitors' prices. Requires `history`."""
    tables: TableSettings | None = None
    """Loads the assets into tables in a database, warehouse or lake."""
    checks: Annotated[CheckSettings | None, switch(CheckSettings)] = Field(
        default_factory=CheckSettings
    )
    """Settings for the checks. `true` (the default) adds the checks with their default settings,
    and `false` adds no checks."""

    @property
    def price_list_rules(self) -> list[PriceListRule]:
        """The rules that compare competitors' prices with your price list."""
        return [each for each in self.alerts if isinstance(each, PriceListRule)]

    @property
    def product_rules(self) -> list[AlertRule]:
        """The rules that do not use a price list."""
        return [each for each in self.alerts if not isinstance(each, PriceListRule)]

    @property
    def by_catalog(self) -> bool:
        """True if assets are partitioned by catalog, or by catalog and day."""
        return self.partitions in {"catalog", "catalog_days"}

    @model_validator(mode="after")
    def _check(self) -> Self:
        partitions, written = f"partitions: {self.partitions}", self.model_fields_set
        if self.changes is not None and "history" not in written:
            self.history = AssetSettings()
        by_day = self.partitions in {"snapshot_days", "catalog_days"}
        check_rule_names(self.product_rules)
        check_rule_names(self.price_list_rules)
        of = self.tables.of or [] if self.tables else []
        missing = next((kind for kind in of if kind != "products" and not getattr(self, kind)), "")
        contradictions = {
            f"{partitions} requires start_date. Write the first day, such as 2026-11-25.": (
                by_day and self.start_date is None
            ),
            "start_date requires daily partitions. Set partitions to snapshot_days or "
            "catalog_days, or remove start_date.": (self.start_date is not None and not by_day),
            f"{partitions} makes each catalog a partition, so the search cannot list catalogs. "
            "Remove `catalogs`, or move the list to catalog_source: {keys: [...]}.": (
                self.by_catalog and self.search.catalogs
            ),
            f"{partitions} and max_products cannot be combined, because partitions would contain "
            "incomplete catalogs. Remove partitions or max_products.": (
                self.partitions != "none" and self.search.max_products is not None
            ),
            "alerts requires a history. Add history: true.": (self.alerts and self.history is None),
            "price-list rules such as undercut require your price list. Add position: "
            "{price_list: ...}.": self.position is None and self.price_list_rules,
            "`changes` requires a history. Remove `history: false`, or remove `changes`.": (
                self.changes is not None and self.history is None
            ),
            "position requires a history. Add history: true.": (
                self.position is not None and self.history is None
            ),
            "notify requires alert rules. Add alerts.": (
                self.notify is not None and not self.alerts
            ),
            f"`tables.of` lists {missing}, but the search does not build this asset. Add "
            f"{missing} to the search, or remove it from `tables.of`.": missing,
            "sensor requires catalog partitions. Set partitions to catalog or catalog_days, or "
            "use a schedule instead.": (self.sensor and not self.by_catalog),
            "catalogs_per_run requires catalog partitions. Set partitions to catalog or "
            "catalog_days, or remove catalogs_per_run.": (
                "catalogs_per_run" in written and not self.by_catalog
            ),
        }
        for text, is_so in contradictions.items():
            if is_so:
                raise ValueError(f"Search {self.name!r}: {text}")
        return self


class AssetsComponent(YamlComponent):
    """A component whose assets can be changed in YAML or in a subclass."""

    translation: Translation = None
    """Changes to the specs of all assets. An asset's own `translation` is applied afterwards."""

    def get_asset_spec(self, data: OctogenAssetData) -> dg.AssetSpec:
        """Return an asset's spec. The component then applies `translation` to the spec.

        Override this method to change keys, tags or metadata depending on the asset's kind.

        Args:
            data: The asset.
        """
        return data.spec

    def execute(
        self, context: dg.AssetExecutionContext, compute: Callable[[], Any]
    ) -> Iterator[Any]:
        """Run an asset and yield its result.

        Override this method in a subclass to log, check or change the result.

        Args:
            context: Dagster's context for the run.
            compute: A function that runs the asset. It returns a scan, a frame, a
                `dagster.MaterializeResult` or an iterator of events.
        """
        result = compute()
        if isinstance(result, Iterator):
            yield from result
        elif isinstance(result, dg.MaterializeResult):
            yield result
        else:
            yield dg.MaterializeResult(value=result)

    def translated(self, data: OctogenAssetData, asset: AssetSettings) -> dg.AssetSpec:
        """Return an asset's spec after applying `get_asset_spec` and both translations."""
        spec = self.get_asset_spec(data)
        for translate in (self.translation, asset.translation):
            spec = spec if translate is None else translate(spec, data)
        return spec
