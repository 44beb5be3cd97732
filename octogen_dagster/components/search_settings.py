"""What a YAML file says of a search and of the assets that follow it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import dagster as dg
from dagster.components.utils.translation import TranslationFn, TranslationFnResolver
from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from octogen_dagster.api.search import ProductSearch
from octogen_dagster.components.asset_data import OctogenAssetData
from octogen_dagster.components.check_settings import CheckSettings
from octogen_dagster.components.yaml_component import YamlModel, placed
from octogen_dagster.components.yaml_fields import switch
from octogen_dagster.settings import require_fraction

Translation = Annotated[
    TranslationFn[OctogenAssetData] | None,
    TranslationFnResolver[OctogenAssetData](lambda data: {"data": data}),
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]


class AssetSettings(YamlModel):
    """The settings of an asset that has no others."""

    name: Name | None = Field(default=None, description="The asset's name.")
    translation: Translation = Field(
        default=None,
        description="Changes of the asset: owners, tags, kinds, group_name, key, key_prefix, "
        "description, metadata, automation_condition, freshness_policy, deps, code_version. Its "
        "templates know `spec` and `data`.",
    )


class DetailsSettings(AssetSettings):
    """The settings of the details of products.

    Each lookup is charged, so they follow the products only with an automation condition.
    """

    only_changed: bool = Field(
        default=False,
        description="Look up only products that are new or listed differently than before.",
    )
    failure_threshold: float = Field(
        default=0.05, description="Share of the lookups, 0 to 1, that may fail."
    )

    # Dagster would apply constraints of the field to its templates too.
    @field_validator("failure_threshold")
    @classmethod
    def _check_threshold(cls, failure_threshold: float) -> float:
        require_fraction("failure_threshold", failure_threshold)
        return failure_threshold


class ScheduleSettings(YamlModel):
    """When a search is materialized."""

    cron: str = Field(description="Five cron fields, or a name such as @daily.")
    timezone: str = Field(default="UTC", description="The IANA time zone of the cron schedule.")
    running: bool = Field(
        default=False, description="True starts the schedule with its first deployment."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_timezone(self.timezone)
        try:
            dg.ScheduleDefinition(job_name="job", cron_schedule=self.cron)
        except dg.DagsterInvalidDefinitionError:
            raise ValueError(
                f"{self.cron!r} is no cron schedule: write five fields, such as 0 6 * * *, or a "
                "name, such as @daily"
            ) from None
        return self


def _check_timezone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ValueError(
            f"there is no time zone {name!r}: write a name such as Europe/Berlin"
        ) from None


@placed
def _resolve_schedule(context: dg.ResolutionContext, value: Any) -> ScheduleSettings:
    if isinstance(value, str):
        return ScheduleSettings(cron=value)
    schedule: ScheduleSettings = ScheduleSettings.resolve_from_model(context, value)
    return schedule


@placed
def _resolve_search(context: dg.ResolutionContext, value: Any) -> ProductSearch:
    given = value.model_dump(exclude_unset=True) if isinstance(value, ProductSearch) else value
    return ProductSearch.model_validate(context.resolve_value(given))


if TYPE_CHECKING:
    _Search = ProductSearch
else:  # Dagster refuses a model whose fields have constraints, also beside a resolver.
    _Search = object

Sensor = bool | Literal["running"]


class SearchSettings(AssetSettings):
    """A search, or whole catalogs, as an asset with those that follow it.

    Raises:
        pydantic.ValidationError: Two settings contradict each other; the message names them.
    """

    name: Name = Field(description="The name of the products asset.")
    search: Annotated[
        _Search,
        dg.Resolver(
            _resolve_search,
            model_field_type=ProductSearch,
            description="What to read; without it all products of all catalogs.",
        ),
    ] = Field(default_factory=ProductSearch)
    partitions: Literal["none", "catalog", "day", "catalog_day"] = Field(
        default="none",
        description="What a partition is: a catalog of the source, the day that it is read on, or "
        "both.",
    )
    start_date: str | None = Field(
        default=None, description="The first day of day partitions, as 2026-11-25."
    )
    timezone: str = Field(default="UTC", description="The IANA time zone in which days begin.")
    min_rows_ratio: float = Field(
        default=0.5,
        description="The smallest snapshot of whole catalogs that is published, as a share of the "
        "rows of the one that it replaces; 0 publishes any.",
    )
    sensor: Sensor | None = Field(
        default=None,
        description="The sensor that materializes a catalog when it appears or was indexed again: "
        "`true` (the default with partitions of catalogs) has it, stopped; `running` starts it "
        "with its first deployment; `false` leaves it out.",
    )
    schedule: Annotated[
        ScheduleSettings | None,
        dg.Resolver(
            _resolve_schedule,
            model_field_type=ScheduleSettings.model(),
            description="Cron text, or `cron`, `timezone` and `running`.",
        ),
    ] = None
    changes: Annotated[
        AssetSettings | None,
        switch(AssetSettings, "What appeared, disappeared or changed since the last snapshot."),
    ] = None
    details: Annotated[
        DetailsSettings | None,
        switch(DetailsSettings, "The full view of each product; each lookup is charged."),
    ] = None
    brands: Annotated[
        AssetSettings | None,
        switch(AssetSettings, "The brands of the products, with their numbers and prices."),
    ] = None
    checks: Annotated[
        CheckSettings | None,
        switch(CheckSettings, "Checks of each snapshot of the products, `true` by default."),
    ] = Field(default_factory=CheckSettings)

    @property
    def by_catalog(self) -> bool:
        """True if the partitions are of catalogs, or of catalogs and days."""
        return self.partitions in {"catalog", "catalog_day"}

    @property
    def by_day(self) -> bool:
        """True if the partitions are of days, or of catalogs and days."""
        return self.partitions in {"day", "catalog_day"}

    @property
    def has_sensor(self) -> bool:
        """True if the catalog sensor watches this asset."""
        return self.by_catalog and self.sensor is not False

    @field_validator("search", mode="before")
    @classmethod
    def _check_search(cls, search: Any) -> ProductSearch:
        return ProductSearch.model_validate(search)

    @field_validator("min_rows_ratio")
    @classmethod
    def _check_ratio(cls, min_rows_ratio: float) -> float:
        require_fraction("min_rows_ratio", min_rows_ratio)
        return min_rows_ratio

    @field_validator("start_date")
    @classmethod
    def _check_date(cls, start_date: str | None) -> str | None:
        if start_date is not None:
            from datetime import date

            try:
                date.fromisoformat(start_date)
            except ValueError:
                raise ValueError(
                    f"start_date is {start_date!r}, which is no date: write one as 2026-11-25"
                ) from None
        return start_date

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_timezone(self.timezone)
        if error := self._contradiction():
            raise ValueError(f"Search {self.name!r}: {error}")
        return self

    def _contradiction(self) -> str | None:
        """What is wrong between two settings, and what to do; None if nothing is."""
        if self.by_day and self.start_date is None:
            return f"partitions: {self.partitions} needs start_date, the first day, as 2026-11-25."
        if self.start_date is not None and not self.by_day:
            return "start_date needs partitions: day or catalog_day. Change one of them."
        if self.by_catalog and self.search.catalogs:
            return (
                f"partitions: {self.partitions} makes each catalog a partition, so the search must "
                "not name catalogs. Remove `catalogs`, or name them in catalog_source: keys."
            )
        if self.partitions != "none" and self.search.max_products is not None:
            return (
                f"partitions: {self.partitions} with max_products would store a part of the "
                "products as a whole partition. Remove max_products or the partitions."
            )
        if self.sensor and not self.by_catalog:
            return "sensor needs partitions: catalog or catalog_day. Use a schedule instead."
        return None
