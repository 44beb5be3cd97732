"""Base classes for YAML settings. Templates are rendered before pydantic validates the values.

Each mistake is reported with its file, line and field, and with the closest valid name. Dagster's
error messages are not used, because they show values, which might be secrets, and they repeat the
mistake for every branch of a union.
"""

from __future__ import annotations

import functools
import importlib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated, Any, Self, get_args

import dagster as dg
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails

from octogen_dagster.api.credentials import KEY_VARIABLE
from octogen_dagster.components.templates import Mistake, Templates, Unrendered
from octogen_dagster.errors import MissingPackageError, OctogenComponentError
from octogen_dagster.validation import did_you_mean, name_mistakes

_TYPES = {
    "bool": "true or false",
    "date": "a date, such as 2026-11-25",
    "dict": "a mapping",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "model": "a mapping",
    "string": "text",
    "tuple": "a list",
}
"""Descriptions of the expected types, keyed by the first word of pydantic's error type."""

_SAID = ("title", "description", "default")
_TEMPLATE = r"\{\{|\{%"
VARIABLE = "variable"
"""Marker for a field in which `{{ env.NAME }}` becomes a `dagster.EnvVar`.

The marker also applies to nested fields. Dagster then shows the variable's name instead of its
value, and the code location loads even if the variable is not set.
"""
Text = Annotated[
    str,
    WrapValidator(lambda text, read: text if isinstance(text, dg.EnvVar) else read(text)),
    VARIABLE,
]
"""A string field that also accepts a `dagster.EnvVar`."""


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    found = re.fullmatch(r"([1-9]\d{0,5})(?:(d| days?)|h| hours?)", str(value))
    if not found:
        raise ValueError("must be a time with its unit, such as 2 days or 36 hours")
    return timedelta(**{"days" if found[2] else "hours": int(found[1])})


Duration = Annotated[timedelta, BeforeValidator(_duration, json_schema_input_type=str)]
"""A time with its unit, such as `2 days`, `7d` or `36h`."""


def check_not_written_out(secret: object, info: ValidationInfo) -> object:
    """Raise an error if the YAML file contains a secret as plain text."""
    if isinstance(secret, str) and not isinstance(secret, dg.EnvVar):
        variable = KEY_VARIABLE if info.field_name == "api_key" else "NAME"
        raise ValueError(
            "must not be written in the file, because Dagster would show the secret in its UI. Set "
            f"an environment variable, and write {info.field_name}: "
            f'"{{{{ env.{variable} }}}}".'
        )
    return secret


def import_by_path(path: str, info: ValidationInfo, example: str) -> Any:
    """Import the object at a dotted path.

    A path with a leading dot is relative to the folder that contains the YAML file.
    """
    folder = (info.context or {}).get("folder", "")
    absolute = f"{folder}{path}" if path.startswith(".") else path
    name, _, attribute = absolute.rpartition(".")
    if not all(part.isidentifier() for part in absolute.split(".")) or not name:
        raise ValueError(f"is not a dotted path. Write one, such as {example}")
    try:
        module = importlib.import_module(name)
    except Exception as error:
        # A module that exists might import a missing one.
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise ValueError(f"the module {error.name} does not exist") from None
        raise ValueError(
            f"the module {name} cannot be imported: {type(error).__name__}: {error}"
        ) from None
    if not hasattr(module, attribute):
        meant = did_you_mean(attribute, vars(module))
        raise ValueError(f"the module {name} has no {attribute}.{meant}")
    return getattr(module, attribute)


def class_by_path(path: str, base: type, info: ValidationInfo, example: str) -> Any:
    """Import the subclass of `base` at a dotted path."""
    found = import_by_path(path, info, example)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"{path} is not a subclass of {base.__name__}")
    return found


class YamlModel(dg.Model):
    """A mapping in a component's YAML."""

    model_config = ConfigDict(hide_input_in_errors=True, use_attribute_docstrings=True)
    _name_mistakes = model_validator(mode="wrap")(name_mistakes)

    @model_validator(mode="before")
    @classmethod
    def _refuse_text(cls, value: object) -> object:
        """Reject a string with an error that names the required field, if there is exactly one."""
        required = [name for name, field in cls.model_fields.items() if field.is_required()]
        if isinstance(value, str) and len(required) == 1:
            raise ValueError(f"must be a mapping. Write {required[0]}: ... below it")
        return value

    def arguments(self) -> dict[str, Any]:
        """Return the fields that are set in YAML as arguments for a builder.

        Other fields are omitted, so the builder's defaults apply.
        """
        names = self.model_fields_set - {"name", "translation"}
        return {name: getattr(self, name) for name in names}


def switch(settings: type[YamlModel], **words: YamlModel) -> BeforeValidator:
    """Return a validator that replaces `true` with default settings and `false` with None.

    Settings are accepted unchanged. `words` maps other accepted strings to settings.
    """

    def read(value: Any) -> Any:
        if isinstance(value, bool):
            return settings() if value else None
        if isinstance(value, str) and value in words:
            return words[value]
        if value is None or isinstance(value, (Mapping, YamlModel)):
            return value
        raise ValueError(f"must be {', '.join(['true', 'false', *words])} or a mapping")

    return BeforeValidator(read, json_schema_input_type=settings | bool | (str if words else bool))


def text_for(settings: Any, read: Callable[[str], Any]) -> BeforeValidator:
    """Return a validator that also accepts a string, and converts the string with `read`."""
    return BeforeValidator(
        lambda value: read(value) if isinstance(value, str) else value,
        json_schema_input_type=settings | str,
    )


class YamlComponent(YamlModel, dg.Component, dg.Resolvable):
    """A component that reports each mistake in its YAML with the file, line and field."""

    @classmethod
    @functools.cache
    def model(cls) -> type[BaseModel]:
        """Return a model that accepts any mapping. Its JSON schema describes the attributes.

        `resolve_from_model` validates the attributes, because Dagster's error would show values.
        """
        component = cls

        class Attributes(BaseModel):
            model_config = ConfigDict(extra="allow")

            @classmethod
            def model_json_schema(cls, *_: Any, **__: Any) -> dict[str, Any]:
                return dict(_with_templates(component.model_json_schema()))

        return Attributes

    @classmethod
    def resolve_from_model(cls, context: dg.ResolutionContext, model: BaseModel) -> Self:
        """Build the component from the attributes in a YAML file."""
        templates = Templates(
            scope=context.scope,
            path=context.path,
            source_position_tree=context.source_position_tree,
            stash=context.stash,
        )
        mistakes: list[Mistake] = []
        data = templates.rendered(model.model_extra, {*_variables(cls)}, mistakes)
        if not mistakes:
            try:
                with _warnings_logged(cls.__name__):
                    return cls.model_validate(data, context={"folder": _folder(context)})
            except ValidationError as error:
                mistakes += [Mistake(templates, *found) for found in _mistakes(error, data)]
            except MissingPackageError as error:
                mistakes.append(Mistake(templates, (), str(error)))
        lines = "\n".join(map(str, sorted(mistakes, key=lambda mistake: mistake.line)))
        raise OctogenComponentError(f"{cls.__name__} cannot be loaded. Correct its YAML:\n{lines}")


def _folder(context: dg.ResolutionContext) -> str:
    """Return the YAML file's folder as a module name, or an empty string if there is no file."""
    if not context.stash:
        return ""
    load = dg.ComponentLoadContext.from_resolution_context(context)
    return load.defs_relative_module_name(load.path)


@contextmanager
def _warnings_logged(component: str) -> Iterator[None]:
    """Log Python warnings about the YAML file, because `dg check defs` shows only the log."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    for message in dict.fromkeys(
        str(each.message) for each in caught if each.category is UserWarning
    ):
        dg.get_dagster_logger().warning(f"{component}: {message}")
    for each in caught:
        if each.category is not UserWarning:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def _variables(model: type[BaseModel]) -> Iterator[str]:
    """Yield the dotted names of the fields that are marked with `VARIABLE`."""
    for name, field in model.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        inner = [mark for each in kinds for mark in getattr(each, "__metadata__", ())]
        if VARIABLE in [*field.metadata, *inner]:
            yield name
        for each in kinds:
            if isinstance(each, type) and issubclass(each, YamlModel):
                yield from (f"{name}.{below}" for below in _variables(each))


def _mistakes(error: ValidationError, data: object) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """For each mistake, yield the field's path and a message.

    pydantic reports a mistake for every branch of a union, and many of Dagster's fields are unions
    because they accept a template. Only the most deeply nested mistake is reported, or the first
    mistake if all have the same depth.
    """
    found: dict[tuple[str | int, ...], ErrorDetails] = {}
    for each in error.errors(include_url=False):
        found.setdefault(_path_in(data, each), each)
    for path, each in found.items():
        if not any(len(other) > len(path) and other[: len(path)] == path for other in found):
            yield path, _describe(each)


def _path_in(data: Any, error: ErrorDetails) -> tuple[str | int, ...]:
    """Return the path to the invalid field in the YAML file.

    pydantic's path also contains the names of union branches.
    """
    path: list[str | int] = []
    for part in error["loc"]:
        data = data.attributes if isinstance(data, Unrendered) else data
        within = dict(enumerate(data)) if isinstance(data, (list, tuple)) else data
        if isinstance(within, Mapping) and part in within:
            data = within[part]
            path.append(part)
    if error["type"] == "missing" and error["loc"][-1] not in path[-1:]:  # null counts as missing
        path.append(error["loc"][-1])
    return tuple(path)


def _describe(error: ErrorDetails) -> str:
    """Describe a mistake without showing the invalid value, which might be a secret."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return str(context["text"])
    if kind == "missing":
        return "is required"
    if kind == "literal_error":
        choices = context["expected"]
        known = choices.replace("'", "").replace(" or ", ", ").split(", ")
        return f"is not a valid choice.{did_you_mean(str(error['input']), known)} Choose {choices}"
    if kind == "value_error":
        return str(context["error"])
    if kind.endswith(("_type", "_parsing")) and (takes := _TYPES.get(kind.split("_")[0])):
        is_text = kind == "list_type" and isinstance(error["input"], str)
        return f"must be {takes}" + (f": write {error['loc'][-1]}: [...]" if is_text else "")
    return error["msg"]


def _with_templates(part: Any) -> Any:
    """Rewrite a JSON schema so that every value can be a template.

    For `anyOf`, a validator only reports that no branch is valid. In the rewritten schema, the
    value's type selects the branch, so a mistake is reported at the invalid field. Each mapping
    also lists its fields, so that editors can suggest a correction for a misspelled field.
    """
    if isinstance(part, list):
        return [_with_templates(each) for each in part]
    if isinstance(part, str):  # resources describe variables and None in Python terms
        return part.replace("a dagster.EnvVar", '"{{ env.NAME }}"').replace("None ", "`null` ")
    if not isinstance(part, Mapping):
        return part
    new = _without_union({name: _with_templates(value) for name, value in part.items()})
    if part.get("additionalProperties") is False:
        fields = new.get("properties", {})
        new["properties"] = {name: _or_template(each) for name, each in fields.items()}
        names: dict[str, Any] = {"enum": list(fields)}
        others = [{"pattern": pattern} for pattern in part.get("patternProperties", ())]
        new["propertyNames"] = {"anyOf": [names, *others]} if others else names
    return new


def _without_union(field: dict[str, Any]) -> dict[str, Any]:
    branches = field.pop("anyOf", None)
    if branches is None:
        return field
    types = [
        branch.get("type", "object") for branch in branches
    ]  # references always point to mappings
    rules = [
        {"if": {"type": type_}, "then": branch}
        for type_, branch in zip(types, branches, strict=True)
        if branch != {"type": type_}
    ]
    return field | {"type": types} | ({"allOf": rules} if rules else {})


def _or_template(field: dict[str, Any]) -> dict[str, Any]:
    if "string" in field.get("type", ()) and not field.keys() & {"enum", "allOf", "minLength"}:
        return field
    said = {name: field.pop(name) for name in _SAID if name in field}
    return said | {"if": {"type": "string", "pattern": _TEMPLATE}, "else": field}
