"""Connection, catalog source and storage settings in YAML."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Annotated, Any, Self, cast, get_args

import dagster as dg
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

import octogen_dagster as od
from octogen_dagster.api.catalog_sources import (
    CatalogSource,
    GrantedCatalogs,
    NamedCatalogs,
    ShopCatalogs,
)
from octogen_dagster.api.credentials import checked_host
from octogen_dagster.components.yaml_model import (
    VARIABLE,
    Text,
    YamlModel,
    check_not_written_out,
    class_by_path,
    text_for,
)
from octogen_dagster.products.resource import OctogenResource


def check_host(host: Text | None) -> Text | None:
    """Raise an error for an invalid host name.

    The error does not show the value, because it might be an API key.
    """
    if host is not None and not isinstance(host, dg.EnvVar):
        try:
            checked_host(host, "host")
        except ValueError:
            raise ValueError(
                "is not a host name. Write only the name, such as octogen.ai, without https://, a "
                "port, a path, or api., mcp. or auth. in front"
            ) from None
    return host


class CatalogSourceSettings(YamlModel):
    """The catalog source: `hosts`, `keys`, or the dotted path of your own `CatalogSource` class.

    Below a dotted path, write the fields of the class.
    """

    model_config = ConfigDict(json_schema_extra={"patternProperties": {r"\.": {"type": "object"}}})

    hosts: list[str] | None = None
    """Shop hosts, such as `acme.com`. All catalogs for these shops are read."""
    keys: list[str] | None = None
    """Catalog keys."""
    catalogs: list[str] | None = None
    """Keys of the catalogs to read for `hosts`. Defaults to all catalogs for these shops."""

    def source(self) -> CatalogSource:
        """Return the catalog source."""
        if self.hosts is not None and self.keys is not None:
            raise ValueError(
                "catalog_source cannot have both hosts and keys. Write hosts to select shops, or "
                "keys to select catalogs."
            )
        if self.hosts is not None:
            return ShopCatalogs(hosts=self.hosts, catalogs=self.catalogs)
        if self.catalogs is not None:
            raise ValueError(
                "`catalogs` requires `hosts`. Add `hosts`, or rename `catalogs` to `keys`."
            )
        return GrantedCatalogs() if self.keys is None else NamedCatalogs(keys=self.keys)


def _source(value: Any, info: ValidationInfo) -> CatalogSource:
    if isinstance(value, CatalogSource):
        return value
    if value == "granted":
        return GrantedCatalogs()
    if isinstance(value, str):
        raise ValueError(
            "is not a catalog source. Write granted, or write hosts: [...] or keys: [...] below it"
        )
    if isinstance(value, Mapping) and len(value) == 1 and "." in (path := str(*value)):
        return _own_source(path, value[path] or {}, info)
    return CatalogSourceSettings.model_validate(value, context=info.context).source()


def _own_source(path: str, fields: Any, info: ValidationInfo) -> CatalogSource:
    source = class_by_path(path, CatalogSource, info, "my_shops.sources.CatalogFile")
    try:
        return cast(CatalogSource, source(**fields))
    except TypeError as error:  # names a field that is missing or unknown
        raise ValueError(f"{path}: {error}") from None


Source = Annotated[
    CatalogSource,
    PlainValidator(_source, json_schema_input_type=CatalogSourceSettings | str),
]


class StorageSettings(YamlModel):
    """Storage settings, with the fields and defaults from `ParquetSnapshotIOManager`."""

    # Listed here because the IO manager's module imports Polars, which `dg` commands that only
    # read YAML do not need.

    base_dir: Text = "snapshots"
    """A folder, or a URI such as `s3://bucket/shops`, `gs://…` or `az://…`."""
    storage_options: Annotated[dict[str, Any], VARIABLE] = Field(default_factory=dict)
    """Options for the object store. Write secrets as `"{{ env.NAME }}"`."""
    partition_column: str = "partition"
    """Name of the partition-key column. Frames with several partitions contain this column."""
    resume_within_hours: float = 6.0
    """Number of hours for which an interrupted read can be resumed.

    With `0`, pages are not saved.
    """

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.io_manager()  # checks the values
        return self

    def io_manager(self) -> od.ParquetSnapshotIOManager:
        """Return the IO manager."""
        return od.ParquetSnapshotIOManager(**{"base_dir": self.base_dir, **self.arguments()})


Storage = Annotated[
    StorageSettings | None, text_for(StorageSettings | None, lambda text: {"base_dir": text})
]


def _fields_of(resource: type[BaseModel], *, without: str) -> dict[str, Any]:
    """Return a resource's fields in the form that `create_model` requires.

    `null` is rejected, because it could remove a budget by mistake.
    """
    fields = {}
    for name, field in resource.model_fields.items():
        (kind,) = {*(get_args(field.annotation) or [field.annotation])} - {NoneType}
        said = Field(default=field.default, description=field.description)
        if name != without:
            fields[name] = (Text if kind is str else kind, said)
    return fields


_CONNECTION = create_model(
    "Connection", __base__=YamlModel, **_fields_of(OctogenResource, without="catalog_source")
)


class ConnectionSettings(_CONNECTION):
    """Connection settings, with the fields and defaults from `OctogenResource`."""

    _check_key = field_validator("api_key")(check_not_written_out)
    _check_host = field_validator("host")(check_host)

    @model_validator(mode="after")
    def _check(self) -> Self:
        OctogenResource(**self.arguments())  # checks the values
        return self
