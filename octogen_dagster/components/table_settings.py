"""Table settings in YAML: the destination and the assets to load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from octogen_dagster import tables
from octogen_dagster.components.yaml_model import (
    VARIABLE,
    YamlModel,
    check_not_written_out,
    class_by_path,
    text_for,
)
from octogen_dagster.errors import MissingPackageError
from octogen_dagster.tables import TableDestination
from octogen_dagster.validation import did_you_mean, require_extras

_MAPPING = "must be a mapping. Write {}duckdb: shop.duckdb{}, or another engine, below it"


def _in_yaml(destination: type[TableDestination]) -> Any:
    """Return a type that validates a destination's fields in YAML.

    The type accepts a mapping or, if only the first field is required, a string for this field.
    """
    first, *others = fields = destination.model_fields
    secrets = destination.environment_fields
    given = create_model(
        destination.__name__,
        __base__=destination,
        __doc__=destination.__doc__,
        __validators__={"_check": field_validator(*secrets, mode="before")(check_not_written_out)}
        if secrets
        else {},
    )
    if any(fields[name].is_required() for name in others):
        return given
    return Annotated[given, text_for(given, lambda text: {first: text})]


_NAMED = (getattr(tables, name) for name in dir(tables))
_BUILT_IN: dict[str, type[TableDestination]] = {
    each.kind: each
    for each in _NAMED
    if isinstance(each, type) and issubclass(each, TableDestination) and hasattr(each, "kind")
}


def _destination(value: Any, info: ValidationInfo) -> TableDestination:
    """Build the destination from a YAML mapping.

    The mapping's only key is an engine's name or the dotted path of a class. The value contains the
    fields.
    """
    if isinstance(value, TableDestination):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(_MAPPING.format("", ""))
    if len(value) != 1:
        raise ValueError(f"must have exactly one engine. Choose one of {', '.join(_BUILT_IN)}")
    (engine,) = value
    found = _BUILT_IN.get(engine) or _own(str(engine), info)
    kind: Any = dict[str, _in_yaml(found)]  # type: ignore[misc]  # a model created at runtime
    given: dict[str, TableDestination] = TypeAdapter(kind).validate_python(
        value, context=info.context
    )
    try:
        require_extras("a table", found.kind)
    except MissingPackageError as error:
        raise ValueError(str(error)) from None
    return given[engine]


def _own(path: str, info: ValidationInfo) -> Any:
    if "." not in path:
        known = ", ".join(_BUILT_IN)
        raise ValueError(
            f"{path} is not a destination.{did_you_mean(path, _BUILT_IN)} Choose one of {known}, "
            "or write the dotted path of a class, such as my_shops.sqlite.SQLiteTables"
        )
    return class_by_path(path, TableDestination, info, "my_shops.sqlite.SQLiteTables")


def _schema() -> Any:
    """Build a model that is used only to generate the JSON schema."""
    fields: dict[str, Any] = {
        name: (
            _in_yaml(each) | None,
            Field(default=None, description=(each.__doc__ or "").partition("\n\n")[0]),
        )
        for name, each in _BUILT_IN.items()
    }
    custom: Any = {"patternProperties": {r"\.": {"type": ["object", "string"]}}}
    config = ConfigDict(extra="forbid", json_schema_extra=custom)
    doc = "The destination's engine, with the engine's settings."
    return create_model("DestinationSettings", __config__=config, __doc__=doc, **fields)


Destination = Annotated[  # Any, because mypy takes a field with a resource as type for a descriptor
    Any, PlainValidator(_destination, json_schema_input_type=_schema()), VARIABLE
]


class LinkedTableSettings(YamlModel):
    """Settings for the table into which linked snapshots are loaded."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_text(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError(_MAPPING.format("destination: {", "}"))
        return value

    destination: Destination
    """The destination: a mapping with one key. The key is an engine's name, or the dotted path of
    your own `TableDestination` class. The value contains the destination's fields."""


class TableSettings(LinkedTableSettings):
    """Settings for loading assets into tables. Each table has the same name as its asset."""

    of: (
        list[Literal["products", "changes", "details", "brands", "history", "alerts", "position"]]
        | None
    ) = None
    """Assets to load. Defaults to all assets that the search builds."""
