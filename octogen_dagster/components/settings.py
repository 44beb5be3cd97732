"""What the YAML of the components says, with its contradictions refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import dagster as dg
from dagster.components.utils.translation import TranslationFn, TranslationFnResolver
from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator
from typing_extensions import Self

from octogen_dagster.api.catalog_sources import (
    CatalogSource,
    GrantedCatalogs,
    NamedCatalogs,
    ShopCatalogs,
)
from octogen_dagster.api.credentials import API_KEY_VARIABLES, checked_host
from octogen_dagster.api.search import ProductSearch
from octogen_dagster.components.yaml_model import (
    Text,
    YamlModel,
    deferred,
    fields_of,
    invalid,
    switch,
)
from octogen_dagster.snapshots.resource import OctogenResource
from octogen_dagster.validation import checked_name, require_fraction

if TYPE_CHECKING:
    from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager

    _Search = ProductSearch
else:  # Dagster refuses a model whose fields have limits, also beside a resolver
    _Search = object

Kind = Literal[
    "catalogs", "products", "changes", "details", "brands", "history",
    "linked_datasets", "linked_products", "linked_snapshot",
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


Sensor = bool | Literal["running"]
Translation = Annotated[
    TranslationFn[OctogenAssetData] | None,
    TranslationFnResolver[OctogenAssetData](lambda data: {"data": data}),
]


# Validators of fields, and not of their types: Dagster would apply those to templates too.
def check_name(name: str | None) -> str | None:
    """Refuse a name that cannot be a part of the names of sensors and resources."""
    return name if name is None else checked_name(name)


def check_host(host: Text | None) -> Text | None:
    """Refuse what is no host name, without showing it: a variable may have a key by mistake."""
    if host is not None and not isinstance(host, dg.EnvVar):
        try:
            checked_host(host, "host")
        except ValueError:
            raise ValueError(
                "is not a host name: write the name alone, such as octogen.ai, without https://, "
                "api., mcp. or auth. before it and without a port or path"
            ) from None
    return host


def check_not_written_out(secret: Text | None, info: ValidationInfo) -> Text | None:
    """Refuse a secret that is not an environment variable's."""
    if secret is not None and not isinstance(secret, dg.EnvVar):
        raise ValueError(_written_out(str(info.field_name), "NAME"))
    return secret


def _written_out(field: str, variable: str) -> str:
    return (
        "is written out, and Dagster would show it in its UI: put it into an environment variable "
        f'and write {field}: "{{{{ env.{variable} }}}}".'
    )


def check_hours(hours: float | None) -> float | None:
    """Refuse an age that nothing can have."""
    if hours is not None and hours <= 0:
        raise ValueError("must be more than 0; null leaves the check out")
    return hours


def _check_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ValueError("there is no such time zone: write a name such as Europe/Berlin") from None
    return name


def _check_date(day: str | None) -> str | None:
    try:
        date.fromisoformat(day or "2026-11-25")
    except ValueError:
        raise ValueError("is no date: write one as 2026-11-25") from None
    return day


def _check_cron(cron: str) -> str:
    try:
        dg.ScheduleDefinition(job_name="job", cron_schedule=cron)
    except dg.DagsterInvalidDefinitionError:
        raise ValueError(
            "is no cron schedule: write five fields, such as 0 6 * * *, or a name, such as @daily"
        ) from None
    return cron


def translated(
    data: OctogenAssetData,
    get_spec: Callable[[OctogenAssetData], dg.AssetSpec],
    *translations: TranslationFn[OctogenAssetData] | None,
) -> dg.AssetSpec:
    """Return the spec of an asset as the component and its translations change it."""
    spec = get_spec(data)
    for translate in translations:
        if translate is not None:
            spec = translate(spec, data)
    return spec


def sensor_status(sensor: Sensor | None) -> dg.DefaultSensorStatus:
    """Return the status with which a sensor is deployed first."""
    status = dg.DefaultSensorStatus
    return status.RUNNING if sensor == "running" else status.STOPPED


class AssetSettings(YamlModel):
    """The settings of an asset that has no others."""

    name: str | None = Field(default=None, description="The asset's name.")
    translation: Translation = Field(
        default=None,
        description="Changes of the asset: owners, tags, kinds, group_name, key, key_prefix, "
        "description, metadata, automation_condition, freshness_policy, deps, code_version. Its "
        "templates know `spec` and `data`.",
    )

    _check_name = field_validator("name")(check_name)


class DetailsSettings(AssetSettings):
    """The settings of the details of products.

    Each lookup is charged, so they follow the products only with an automation condition.
    """

    only_changed: bool = Field(
        default=False,
        description="Look up only products that are new or listed differently than before.",
    )
    max_failed_fraction: float = Field(
        default=0.05, description="Share of the lookups, 0 to 1, that may fail."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        require_fraction("max_failed_fraction", self.max_failed_fraction)
        return self


class CheckSettings(YamlModel):
    """The arguments of `build_snapshot_checks`, with its defaults; a null leaves a check out."""

    max_age_hours: float | None = Field(
        default=None,
        description="Hours after which a catalog that was not materialized fails `fresh`.",
    )
    max_rows_change: float | None = Field(
        default=None,
        description="Share by which the rows may differ from those of the last snapshots.",
    )
    max_null_fraction: dict[str, float] | None = Field(
        default=None, description="The largest share of nulls of columns by name."
    )
    max_bad_price_fraction: float | None = Field(
        default=None, description="Share of the products whose price may be bad."
    )
    price_outlier_ratio: float = Field(
        default=100.0, description="How many times a price may be above or below the median."
    )
    exclude: list[str] = Field(default_factory=list, description="Names of checks to leave out.")
    blocking: bool = Field(
        default=False, description="Keep what is downstream from running after a failed check."
    )
    severity: Literal["ERROR", "WARN"] = Field(
        default="ERROR", description="The severity of a failed check."
    )

    _check_hours = field_validator("max_age_hours")(check_hours)

    @model_validator(mode="after")
    def _check(self) -> Self:
        from octogen_dagster.snapshots.checks import build_snapshot_checks

        products = dg.AssetsDefinition(specs=[dg.AssetSpec("products")])
        build_snapshot_checks(products, **self.arguments())  # has the ranges of the fields
        return self

    def arguments(self) -> dict[str, Any]:
        """The arguments of `build_snapshot_checks` that are set."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        if "severity" in given:
            given["severity"] = dg.AssetCheckSeverity(given["severity"])
        if "max_age_hours" in given:
            hours = given.pop("max_age_hours")
            given["max_age"] = None if hours is None else timedelta(hours=hours)
        return given


class ScheduleSettings(YamlModel):
    """When a search is materialized."""

    cron: str = Field(description="Five cron fields, or a name such as @daily.")
    timezone: str = Field(default="UTC", description="The IANA time zone of the schedule.")
    running: bool = Field(
        default=False, description="True starts the schedule with its first deployment."
    )

    _check_cron = field_validator("cron")(_check_cron)
    _check_timezone = field_validator("timezone")(_check_timezone)

    @classmethod
    def of_text(cls, text: str) -> Self:
        """Return the schedule of a cron text."""
        return cls(cron=text)


class SearchSettings(AssetSettings):
    """A search, or whole catalogs, as an asset with those that follow it."""

    name: str = Field(description="The name of the products asset.")
    search: Annotated[
        _Search,
        fields_of(
            ProductSearch,
            "What to read; without it all products of all catalogs.",
            ProductSearch.model_validate,
        ),
    ] = Field(default_factory=ProductSearch)
    partitions: Literal["none", "catalog", "day", "catalog_day"] = Field(
        default="none",
        description="What a partition is: a catalog of the source, the day of the read, or both.",
    )
    start_date: str | None = Field(
        default=None, description="The first day of day partitions, as 2026-11-25."
    )
    timezone: str = Field(default="UTC", description="The IANA time zone in which days begin.")
    catalogs_per_run: int = Field(
        default=25,
        description="The most catalogs that a run reads, where partitions are of catalogs. "
        "Dagster gives a run neighbours in the order in which the partitions were added.",
    )
    min_rows_fraction: float = Field(
        default=0.5,
        description="The smallest snapshot that replaces the last one, as a share of its rows.",
    )
    sensor: Sensor | None = Field(
        default=None,
        description="The sensor of catalogs that are new or indexed again: `true` (the default "
        "with partitions of catalogs) has it, stopped; `running` starts it; `false` has none.",
    )
    schedule: ScheduleSettings | None = Field(
        default=None, description="Cron text, or `cron`, `timezone` and `running`."
    )
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
    history: Annotated[
        AssetSettings | None,
        switch(AssetSettings, "Prices and availability of each product since the first snapshot."),
    ] = None
    checks: Annotated[
        CheckSettings | None,
        switch(CheckSettings, "Checks of each snapshot of the products, `true` by default."),
    ] = Field(default_factory=CheckSettings)

    _check_date = field_validator("start_date")(_check_date)
    _check_timezone = field_validator("timezone")(_check_timezone)

    @property
    def by_catalog(self) -> bool:
        """True if the partitions are of catalogs, or of catalogs and days."""
        return self.partitions in {"catalog", "catalog_day"}

    @property
    def by_day(self) -> bool:
        """True if the partitions are of days, or of catalogs and days."""
        return self.partitions in {"day", "catalog_day"}

    @property
    def backfill_policy(self) -> dg.BackfillPolicy | None:
        """The policy of the products and of what follows them; None for a catalog in each run."""
        if not self.by_catalog or self.catalogs_per_run == 1:
            return None
        return dg.BackfillPolicy.multi_run(self.catalogs_per_run)

    @property
    def has_sensor(self) -> bool:
        """True if the catalog sensor watches this asset."""
        return self.by_catalog and self.sensor is not False

    @model_validator(mode="after")
    def _check(self) -> Self:
        require_fraction("min_rows_fraction", self.min_rows_fraction)
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
        return self._contradiction_of_runs()

    def _contradiction_of_runs(self) -> str | None:
        if self.catalogs_per_run < 1:
            return f"catalogs_per_run must be at least 1, not {self.catalogs_per_run}."
        if "catalogs_per_run" in self.model_fields_set and not self.by_catalog:
            return "catalogs_per_run needs partitions: catalog or catalog_day. Change one of them."
        return None


class CatalogSourceSettings(YamlModel):
    """Where catalogs come from: the hosts of shops or the keys of catalogs."""

    hosts: list[str] | None = Field(
        default=None, description="Hosts of shops, such as acme.com: the catalogs that serve them."
    )
    keys: list[str] | None = Field(default=None, description="Keys of catalogs.")
    catalogs: list[str] | None = Field(
        default=None,
        description="Keys of those catalogs of the hosts that are read; all by default.",
    )

    @classmethod
    def of_text(cls, text: str) -> Self:
        """Return the settings of the word `granted`."""
        if text != "granted":
            raise ValueError("write granted, or hosts: [...] or keys: [...] below it")
        return cls()

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.source()
        return self

    def source(self) -> CatalogSource:
        """The source that these settings describe."""
        if self.hosts is not None and self.keys is not None:
            raise ValueError(
                "catalog_source has both hosts and keys: write one of them. Hosts are of shops, "
                "and keys are of catalogs."
            )
        if self.hosts is not None:
            return ShopCatalogs(hosts=self.hosts, catalogs=self.catalogs)
        if self.catalogs is not None:
            raise ValueError(
                "catalog_source has catalogs without hosts, among whose catalogs they choose: "
                "write hosts, or write keys instead of catalogs."
            )
        return GrantedCatalogs() if self.keys is None else NamedCatalogs(keys=self.keys)


def _resolve_catalog_source(context: dg.ResolutionContext, value: Any) -> CatalogSource:
    return CatalogSourceSettings.resolve_from_model(context, value).source()


class StorageSettings(YamlModel):
    """The fields of `ParquetSnapshotIOManager`; those that are left out have its defaults.

    They are written out here, since the module of the IO manager imports Polars, which no command
    of `dg` needs to read a YAML file.
    """

    base_dir: Annotated[
        Text,
        deferred(str, "A folder, s3://bucket/..., gs://... or az://...; by default `snapshots`."),
    ] = "snapshots"
    storage_options: Annotated[
        dict[str, Any],
        deferred(dict[str, Any], 'Options of the store; a secret among them is "{{ env.NAME }}".'),
    ] = Field(default_factory=dict)
    partition_column: str = Field(
        default="partition", description="The column that tells partitions in one frame apart."
    )
    resume_within_hours: float = Field(
        default=6.0,
        description="Hours for which a read that died is continued; with 0 no pages are saved.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.io_manager()  # has the ranges of the fields
        return self

    def io_manager(self) -> ParquetSnapshotIOManager:
        """The IO manager that these settings describe."""
        from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager

        # Not by model_dump, which does not promise that an EnvVar stays what it is.
        return ParquetSnapshotIOManager(
            **{name: getattr(self, name) for name in type(self).model_fields}
        )


def _checked_connection(given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `OctogenResource`, unless it refuses them."""
    if "api_key" in given and not isinstance(given["api_key"], dg.EnvVar):
        raise invalid(("api_key",), _written_out("api_key", API_KEY_VARIABLES[0]))
    try:
        check_host(given.get("host"))
    except ValueError as error:
        raise invalid(("host",), str(error)) from None
    OctogenResource(**given)
    return given


class OctogenSettings(YamlModel):
    """The YAML of an `OctogenComponent`."""

    model_config = ConfigDict(arbitrary_types_allowed=True)  # CatalogSource

    name: str = Field(
        default="octogen",
        description="The resources are <name> and <name>_io_manager; the table of the catalogs "
        "and their partitions are <name>_catalogs. Two components need two names.",
    )
    connection: Annotated[
        dict[str, Any],
        fields_of(
            OctogenResource,
            "Octogen's REST API: the fields of OctogenResource.",
            _checked_connection,
            without=["catalogs"],
        ),
    ] = Field(default_factory=dict)
    catalog_source: Annotated[
        CatalogSource,
        dg.Resolver(
            _resolve_catalog_source,
            model_field_type=CatalogSourceSettings.model(),
            description="granted (the default), or `hosts` of shops, or `keys` of catalogs.",
        ),
    ] = Field(default_factory=GrantedCatalogs)
    storage: StorageSettings | None = Field(
        default_factory=StorageSettings,
        description="The store of the snapshots; null for the project's own `io_manager`.",
    )
    catalogs: Annotated[
        AssetSettings | None,
        switch(AssetSettings, "Their table; by default there if catalogs are partitions."),
    ] = None
    searches: list[SearchSettings] = Field(
        default_factory=list, description="Searches and whole catalogs."
    )
    automation: Literal["running"] | None = Field(
        default=None,
        description="`running` starts what follows the searches with the first deployment.",
    )
    translation: Translation = Field(
        default=None,
        description="Changes of all assets; those of a single asset are in its own translation.",
    )

    _check_name = field_validator("name")(check_name)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [search.name for search in self.searches]
        for position, name in enumerate(names):
            if (first := names.index(name)) < position:
                raise invalid(
                    ("searches", position, "name"),
                    f"{name!r} is also the name of searches[{first}]: give each search a name of "
                    "its own.",
                )
        return self

    @property
    def catalogs_table(self) -> AssetSettings | None:
        """The settings of the table of the catalogs; None if there is no table."""
        if "catalogs" in self.model_fields_set:
            return self.catalogs
        return AssetSettings() if any(search.by_catalog for search in self.searches) else None

    def octogen(self) -> OctogenResource:
        """The resource that `connection` and `catalog_source` describe."""
        return OctogenResource(**self.connection, catalogs=self.catalog_source)
