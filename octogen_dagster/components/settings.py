"""What the YAML of the components says of assets, with its contradictions refused."""

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
    refuse_unknown_settings,
    require_percent,
)

Kind = Literal[
    "catalogs", "products", "changes", "details", "brands", "history", "alerts", "position",
    "own_history", "own_alerts", "linked_datasets", "linked_products", "linked_snapshot",
    "linked_history", "url_list", "url_export", "url_coverage", "url_offers", "url_matches",
    "table",
]  # fmt: skip


@dataclass(frozen=True)
class OctogenAssetData:
    """An asset of a component, as `get_asset_spec` and `translation` see it.

    Attributes:
        kind: What the asset is.
        spec: Its key, partitions, automation condition and IO manager. What it leaves unset, such
            as the description, is that of the builder.
        search: The search of a products asset.
    """

    kind: Kind
    spec: dg.AssetSpec
    search: ProductSearch | None = None


_VALIDATORS: dict[str, Any] = {
    "refuse_unknown": model_validator(mode="wrap")(refuse_unknown_settings)
}
_ASSET_ATTRIBUTES = create_model(
    "Translation", __base__=AssetAttributesModel, __validators__=_VALIDATORS
)
_TRANSLATIONS = TranslationFnResolver[OctogenAssetData](lambda data: {"data": data})


def _translation(value: Any) -> Any:
    """Return the function of a translation that YAML has."""
    if not isinstance(value, Unrendered) or value.attributes is None:
        return None if isinstance(value, Unrendered) else value
    attributes = value.attributes
    if not isinstance(attributes, str):  # as a function of the project's template variables is
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
            f"{cron!r} is not a cron schedule: write five fields, such as 0 6 * * *, or a name, "
            "such as @daily"
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
    """The settings of an asset that has no others."""

    name: Name | None = None
    """The asset's name."""
    translation: Translation = None
    """Changes of the asset: owners, tags, kinds, group_name, key, key_prefix, description,
    metadata, automation_condition, freshness_policy, deps, code_version. Its templates know `spec`
    and `data`."""


class DetailsSettings(AssetSettings):
    """The settings of the details of products.

    Each lookup is charged, so they follow the products only with an automation condition.
    """

    only_changed: bool = False
    """Look up only products that are new or listed differently than before."""
    max_failed_percent: Percent = 5
    """Percent of the lookups that may fail."""


class PositionSettings(AssetSettings):
    """The settings of own prices beside those of competitors."""

    own: str
    """The key of the asset that has them: sku, product_url, own_price, currency."""
    undercut_percent: Percent = 50
    """Percent of the pairs that match in which a competitor may be below the own price."""
    unmatched_percent: Percent = 20
    """Percent of the pairs that may have no match."""


class CheckSettings(YamlModel):
    """The arguments of `build_snapshot_checks`, with its defaults; a null leaves a check out."""

    max_age: Duration | None = Field(default="2 days", validate_default=True)
    """The time, such as 36 hours, after which a catalog that was not materialized fails `fresh`."""
    max_rows_change_percent: float | None = 30
    """By how many percent the rows may differ from those of the last snapshots."""
    max_null_percent: dict[str, float] | None = Field(
        default={"product_url": 0.0, "title": 20.0, "current_price": 20.0}
    )
    """The most percent of nulls of columns by name."""
    max_bad_price_percent: float | None = 0.1
    """Percent of the products whose price may be bad."""
    price_outlier_ratio: float = 100.0
    """How many times a price may be above or below the median."""
    exclude: list[str] = Field(default_factory=list)
    """Names of checks to leave out."""
    blocking: bool = False
    """Keep what is downstream from running after a failed check."""
    severity: Severity = "ERROR"
    """The severity of a failed check."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        from octogen_dagster.checks.snapshot_checks import check_names, names_of_checks
        from octogen_dagster.position.table import UNDERCUT, UNMATCHED

        products = od.build_products_asset("products")
        # It has the ranges of the fields.
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
        """The arguments for the checks of an asset: the names are those of the checks of all."""
        from octogen_dagster.checks.snapshot_checks import names_of_checks

        arguments, known = self.arguments(), names_of_checks(asset)
        return arguments | {"exclude": [name for name in self.exclude if name in known]}


class ScheduleSettings(YamlModel):
    """When a search is materialized."""

    cron_schedule: Cron
    """Five cron fields, or a name such as @daily."""
    execution_timezone: Timezone = "UTC"
    """The IANA time zone of the schedule."""
    running: bool = False
    """True starts the schedule with its first deployment."""

    def arguments(self) -> dict[str, Any]:
        """The arguments of a schedule's builder."""
        status = dg.DefaultScheduleStatus("RUNNING" if self.running else "STOPPED")
        when = {name: getattr(self, name) for name in ("cron_schedule", "execution_timezone")}
        return when | {"default_status": status}


class SensorSettings(YamlModel):
    """How a sensor runs."""

    running: bool = False
    """True starts the sensor with its first deployment."""
    minimum_interval_seconds: int = Field(default=300, gt=0)
    """Seconds from one tick to the next, at least."""

    def arguments(self) -> dict[str, Any]:
        """The arguments of a sensor's builder."""
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
    """A search, or whole catalogs, as an asset with those that follow it."""

    name: Name
    """The name of the products asset."""
    search: Annotated[ProductSearch, text_for(ProductSearch, lambda text: {"q": text})] = Field(
        default_factory=ProductSearch
    )
    """What to read, or its `q` alone; without it all products of all catalogs."""
    partitions: Literal["none", "catalog", "snapshot_days", "catalog_days"] = "none"
    """What a partition is: a catalog of the source, the day of the read, or both."""
    start_date: date | None = None
    """The first day of day partitions, as 2026-11-25."""
    timezone: Timezone = "UTC"
    """The IANA time zone in which days begin."""
    catalogs_per_run: int = Field(default=25, ge=1)
    """The most catalogs that a run reads, where partitions are of catalogs. Dagster gives a run
    neighbours in the order in which the partitions were added."""
    min_rows_percent: Percent = 50
    """The smallest snapshot that replaces the last one, in percent of its rows."""
    sensor: Sensor = None
    """The sensor of catalogs that are new or indexed again: `true` (the default with partitions of
    catalogs) has it, stopped; `running` starts it; `false` has none; or its settings."""
    schedule: Schedule = None
    """Cron text, or `cron_schedule`, `execution_timezone` and `running`."""
    changes: Asset = None
    """What appeared, disappeared or changed in the last snapshot that differs from the previous
    one. It is read from the history, which `changes` brings with it."""
    details: Annotated[DetailsSettings | None, switch(DetailsSettings)] = None
    """The full view of each product; each lookup is charged."""
    brands: Asset = None
    """The brands of the products, with their numbers and prices."""
    history: Asset = None
    """Prices and availability of each product since the first snapshot."""
    alerts: list[Rule] = Field(default_factory=list)
    """Rules, whose events are found in the history."""
    notify: Notify = None
    """Who is told of the alerts: the dotted path of a function, or `function`, `slack`, `email` and
    `running`."""
    position: PositionSettings | None = None
    """Own prices beside those in the history: the key of the asset that has them, as `own`."""
    tables: TableSettings | None = None
    """Tables of the snapshots in a database or a warehouse: `destination` and `of`."""
    checks: Annotated[CheckSettings | None, switch(CheckSettings)] = Field(
        default_factory=CheckSettings
    )
    """Checks of each snapshot of the products, `true` by default."""

    @property
    def price_list_rules(self) -> list[PriceListRule]:
        """The rules that compare competitors with your price list."""
        return [each for each in self.alerts if isinstance(each, PriceListRule)]

    @property
    def product_rules(self) -> list[AlertRule]:
        """The other rules."""
        return [each for each in self.alerts if not isinstance(each, PriceListRule)]

    @property
    def by_catalog(self) -> bool:
        """True if the partitions are of catalogs, or of catalogs and days."""
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
            f"{partitions} needs start_date, the first day, as 2026-11-25.": (
                by_day and self.start_date is None
            ),
            "start_date needs partitions: snapshot_days or catalog_days. Change one of them.": (
                self.start_date is not None and not by_day
            ),
            f"{partitions} makes each catalog a partition, so the search must not name catalogs. "
            "Remove `catalogs`, or name them in catalog_source: keys.": (
                self.by_catalog and self.search.catalogs
            ),
            f"{partitions} with max_products would store a part of the products as a whole "
            "partition. Remove max_products or the partitions.": (
                self.partitions != "none" and self.search.max_products is not None
            ),
            "alerts are found in the history. Write history: true beside them.": (
                self.alerts and self.history is None
            ),
            "price-list rules, such as undercut, need your price list. Write position: {own: ...} "
            "beside them.": self.position is None and self.price_list_rules,
            "changes are read from the history. Remove history: false, or changes.": (
                self.changes is not None and self.history is None
            ),
            "position compares with the history. Write history: true beside it.": (
                self.position is not None and self.history is None
            ),
            "notify tells of alerts. Write alerts beside it.": (
                self.notify is not None and not self.alerts
            ),
            f"tables: of names {missing}, which the search does not have. Add {missing} to the "
            "search, or remove it from of.": missing,
            "sensor needs partitions: catalog or catalog_days. Use a schedule instead.": (
                self.sensor and not self.by_catalog
            ),
            "catalogs_per_run needs partitions: catalog or catalog_days. Change one of them.": (
                "catalogs_per_run" in written and not self.by_catalog
            ),
        }
        for text, is_so in contradictions.items():
            if is_so:
                raise ValueError(f"Search {self.name!r}: {text}")
        return self


class AssetsComponent(YamlComponent):
    """A component whose assets a subclass and YAML may change."""

    translation: Translation = None
    """Changes of all assets; those of a single asset are in its own translation."""

    def get_asset_spec(self, data: OctogenAssetData) -> dg.AssetSpec:
        """Return the spec of an asset, before `translation` changes it.

        Override it in a subclass to change keys, tags or metadata by what the asset is.

        Args:
            data: The asset.
        """
        return data.spec

    def execute(
        self, context: dg.AssetExecutionContext, compute: Callable[[], Any]
    ) -> Iterator[Any]:
        """Run an asset and yield its result.

        Override it in a subclass to log, check or change what an asset returns.

        Args:
            context: The context of the run.
            compute: Runs the asset and returns what it returns: a scan, a frame, a
                `dagster.MaterializeResult`, or an iterator of events.
        """
        result = compute()
        if isinstance(result, Iterator):
            yield from result
        elif isinstance(result, dg.MaterializeResult):
            yield result
        else:
            yield dg.MaterializeResult(value=result)

    def translated(self, data: OctogenAssetData, asset: AssetSettings) -> dg.AssetSpec:
        """Return the spec of an asset as the component and both translations change it."""
        spec = self.get_asset_spec(data)
        for translate in (self.translation, asset.translation):
            spec = spec if translate is None else translate(spec, data)
        return spec
