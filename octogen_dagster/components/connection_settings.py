"""What the YAML of the components says of Octogen, its catalogs and where snapshots are kept."""

from __future__ import annotations

from types import NoneType
from typing import Annotated, Any, Self, get_args

import dagster as dg
from pydantic import BaseModel, Field, create_model, field_validator, model_validator

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
    text_for,
)
from octogen_dagster.products.resource import OctogenResource


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


def _granted(text: str) -> dict[str, Any]:
    if text != "granted":
        raise ValueError("write granted, or hosts: [...] or keys: [...] below it")
    return {}


class CatalogSourceSettings(YamlModel):
    """Where catalogs come from: the hosts of shops or the keys of catalogs."""

    hosts: list[str] | None = None
    """Hosts of shops, such as acme.com: the catalogs that serve them."""
    keys: list[str] | None = None
    """Keys of catalogs."""
    catalogs: list[str] | None = None
    """Keys of those catalogs of the hosts that are read; all by default."""

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


Source = Annotated[CatalogSourceSettings, text_for(CatalogSourceSettings, _granted)]


class StorageSettings(YamlModel):
    """The fields of `ParquetSnapshotIOManager`; those that are left out have its defaults.

    They are written out here, since the module of the IO manager imports Polars, which no command
    of `dg` needs to read a YAML file.
    """

    base_dir: Text = "snapshots"
    """A folder, s3://bucket/..., gs://... or az://...; by default `snapshots`."""
    storage_options: Annotated[dict[str, Any], VARIABLE] = Field(default_factory=dict)
    """Options of the store; a secret among them is "{{ env.NAME }}"."""
    partition_column: str = "partition"
    """The column that tells partitions in one frame apart."""
    resume_within_hours: float = 6.0
    """Hours for which a read that died is continued; with 0 no pages are saved."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.io_manager()  # has the ranges of the fields
        return self

    def io_manager(self) -> od.ParquetSnapshotIOManager:
        """The IO manager that these settings describe."""
        return od.ParquetSnapshotIOManager(**{"base_dir": self.base_dir, **self.arguments()})


Storage = Annotated[
    StorageSettings | None, text_for(StorageSettings | None, lambda text: {"base_dir": text})
]


def _fields_of(resource: type[BaseModel], *, without: str) -> dict[str, Any]:
    """Return the fields of a resource, for a model of YAML. A null is refused: it is no budget."""
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
    """The fields of `OctogenResource`; those that are left out have its defaults."""

    _check_key = field_validator("api_key")(check_not_written_out)
    _check_host = field_validator("host")(check_host)

    @model_validator(mode="after")
    def _check(self) -> Self:
        OctogenResource(**self.arguments())  # has the ranges of the fields
        return self
