"""Base classes of what YAML says: templates, and mistakes told with file, line and near miss.

Dagster's own messages show values, which may be secrets, and all branches of a union.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, Union, get_args, get_origin

import dagster as dg
from dagster.components.resolved.base import resolve_fields
from dagster.components.resolved.core_models import AssetAttributesModel
from dagster.components.resolved.errors import ResolutionException
from dagster_shared.record import as_dict
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    RootModel,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError
from typing_extensions import Self

from octogen_dagster.api.search import CHECKED
from octogen_dagster.errors import MissingPackageError, OctogenComponentError
from octogen_dagster.validation import did_you_mean, refuse_unknown_settings

if TYPE_CHECKING:
    from dagster_shared.yaml_utils.source_position import SourcePositionTree
    from pydantic_core import ErrorDetails

_Settings = TypeVar("_Settings", bound="YamlModel")

Path = tuple[str | int, ...]
Mistake = tuple[Path, str]
"""The keys and positions that lead to a field, and what is wrong with it."""
Text: TypeAlias = str | InstanceOf[dg.EnvVar]
"""A text, or the environment variable that has it."""

_TEMPLATE = re.compile(r"\{[{%#]")
_VARIABLE = re.compile(r"\benv\.(\w+)")
_ONLY_A_VARIABLE = re.compile(r"\{\{\s*env\.(\w+)\s*\}\}")
_TYPES = {
    "bool": "true or false",
    "dict": "a mapping",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "model": "a mapping",
    "string": "text",
    "tuple": "a list",
}
"""What a field takes, by the first word of pydantic's names for errors."""
_TEXT = {"type": "string"}
_TEMPLATE_SCHEMA = {"type": "string", "pattern": r"\{\{|\{%"}
_SCALARS = {"boolean", "integer", "null", "number", "string"}
_REFUSE_UNKNOWN: dict[str, Any] = {"refuse": model_validator(mode="wrap")(refuse_unknown_settings)}


class MistakesFound(ResolutionException):
    """Mistakes on their way to the component; Dagster lets its own exceptions pass."""

    def __init__(self, *mistakes: Mistake) -> None:
        super().__init__("\n".join(map(_render, mistakes)))
        self.mistakes = mistakes


@contextmanager
def located(context: dg.ResolutionContext, data: object) -> Iterator[None]:
    """Tell of what the block refuses in `data` with its place in the file."""
    path = tuple(context.path)
    try:
        yield
    except ValidationError as error:
        raise MistakesFound(*_find_mistakes(error, data, path)) from None
    except (ValueError, MissingPackageError) as error:
        raise MistakesFound((path, str(error))) from None


def invalid(path: Path, text: str) -> ValidationError:
    """Return what a validator raises if a field below its model is not valid."""
    kind = PydanticCustomError("invalid", "{text}", {"text": text})
    return ValidationError.from_exception_data(
        "settings", [InitErrorDetails(type=kind, loc=path, input=None)]
    )


class YamlModel(dg.Model, dg.Resolvable):
    """A mapping in the YAML of a component."""

    model_config = ConfigDict(hide_input_in_errors=True)

    @classmethod
    @functools.cache
    def model(cls) -> type[BaseModel]:
        """The model of the mapping before its templates are rendered."""
        return create_model(cls.__name__, __base__=super().model(), __validators__=_REFUSE_UNKNOWN)

    @classmethod
    def of_text(cls, text: str) -> Self:
        """Return what a text stands for, where a mapping is expected."""
        raise ValueError("must be a mapping")

    @classmethod
    def resolve_from_model(cls, context: dg.ResolutionContext, model: BaseModel | str) -> Self:
        """Return the settings that a mapping stands for, with its templates rendered."""
        if not isinstance(model, BaseModel):
            with located(context, model):
                return cls.of_text(model)
        with located(context, model.model_dump(exclude_unset=True)):
            try:
                resolved: Self = super().resolve_from_model(context, model)
            except MistakesFound:  # in the first field that has any
                mistakes = list(cls._mistakes_in_fields(context, model))
                raise MistakesFound(*mistakes) from None
        return resolved

    @classmethod
    def _mistakes_in_fields(
        cls, context: dg.ResolutionContext, model: BaseModel
    ) -> Iterator[Mistake]:
        """Resolve each field, and each mapping in a list, by itself."""
        for name in model.model_fields_set:
            value, attempts = getattr(model, name), list[Callable[[], object]]()
            annotation = cls.model_fields[name].annotation
            inner: Any = get_args(annotation)[0] if get_origin(annotation) is list else None
            if isinstance(value, tuple) and hasattr(inner, "resolve_from_model"):
                for position, each in enumerate(value):
                    place = context.at_path(name).at_path(position)
                    attempts.append(functools.partial(inner.resolve_from_model, place, each))
            else:
                alone = model.model_construct({name}, **{name: value})
                attempts.append(functools.partial(resolve_fields, alone, cls, context))
            for attempt in attempts:
                try:
                    attempt()
                except MistakesFound as error:
                    yield from error.mistakes


def switch(settings: type[_Settings], description: str) -> dg.Resolver:
    """The resolver of a field that is `true` (the default settings), `false` (None) or settings."""

    def resolve(context: dg.ResolutionContext, value: Any) -> _Settings | None:
        if isinstance(value, bool):
            return settings() if value else None
        return settings.resolve_from_model(context, value)

    return dg.Resolver(resolve, model_field_type=bool | settings.model(), description=description)


def deferred(model_field_type: Any, description: str) -> dg.Resolver:
    """The resolver of a field whose `{{ env.NAME }}` becomes a `dagster.EnvVar`.

    So Dagster shows the name of the variable, and a code location loads without its value.
    """
    return dg.Resolver(
        _as_variable,
        model_field_type=model_field_type,
        description=description,
        inject_before_resolve=False,
    )


def _as_variable(context: dg.ResolutionContext, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_variable(context.at_path(name), each) for name, each in value.items()}
    if isinstance(value, str) and (found := _ONLY_A_VARIABLE.fullmatch(value)):
        return dg.EnvVar(found[1])
    return context.resolve_value(value)


def fields_of(
    model: type[BaseModel],
    description: str,
    make: Callable[[dict[str, Any]], Any],
    *,
    without: Collection[str] = (),
) -> dg.Resolver:
    """The resolver of a mapping with the fields of a resource, or of another pydantic model.

    `make` makes the value of the fields that are given, and `without` are those that YAML does not
    have. Limits are left to the model, since a template may stand for a value. A text of a resource
    may be a variable, which is read where a step runs; a null is refused: it would be no budget.
    """
    is_resource = issubclass(model, dg.ConfigurableResource)
    types: dict[str, Any] = {
        name: _without_null(field.annotation) if is_resource else field.annotation
        for name, field in model.model_fields.items()
        if name not in without
    }
    fields: Any = {
        name: (kind | str, _described(model.model_fields[name])) for name, kind in types.items()
    }
    form = create_model(
        f"{model.__name__}Fields", __base__=dg.Model, __validators__=_REFUSE_UNKNOWN, **fields
    )

    def resolve(context: dg.ResolutionContext, value: BaseModel | str) -> Any:
        if not isinstance(value, BaseModel):
            raise MistakesFound((tuple(context.path), "must be a mapping"))
        given = value.model_dump(exclude_unset=True)
        for name, each in given.items():
            field, is_text = context.at_path(name), types[name] is str
            given[name] = (
                _as_variable(field, each) if is_resource and is_text else field.resolve_value(each)
            )
        with located(context, given):
            return make(given)

    return dg.Resolver(
        resolve, model_field_type=form, description=description, inject_before_resolve=False
    )


def _without_null(annotation: Any) -> Any:
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else [annotation]
    return functools.reduce(operator.or_, (kind for kind in kinds if kind is not NoneType))


def _described(field: FieldInfo) -> Any:
    default = field.default if isinstance(field.default, bool | int | float | str) else None
    return Field(default=default, description=field.description)


class _TextKeepingContext(dg.ResolutionContext):
    """A context in which a text that is no template stays as it is.

    Dagster renders every text, and what comes out is read as Python: "501" becomes a number. A
    variable that is not set would become None, which is no limit for a budget.
    """

    def resolve_value(self, val: Any, as_type: type | None = None) -> Any:
        if isinstance(val, str) and not _TEMPLATE.search(val):
            return val
        value = super().resolve_value(val)
        if value is None and isinstance(val, str) and (found := _VARIABLE.search(val)):
            text = f"the environment variable {found[1]} is not set"
            raise MistakesFound((tuple(self.path), text))
        return value


class YamlComponent(YamlModel, dg.Component):
    """A component whose mistakes in YAML are told with file, line, field and near miss."""

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """Return a model of any mapping, which has the JSON schema of the attributes.

        `load` validates the attributes, since Dagster's own message shows values.
        """
        schema = _without_unions(cls.model().model_json_schema())

        class Attributes(RootModel[dict[str, Any]]):
            @classmethod
            def model_json_schema(cls, *_: Any, **__: Any) -> dict[str, Any]:
                return schema

        return Attributes

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Return the component of the attributes of a YAML file."""
        data = attributes.root if isinstance(attributes, RootModel) else {}
        own = _TextKeepingContext(**as_dict(context.resolution_context))
        try:
            with located(own.at_path("attributes"), data):
                # Facets are checked with the values of their templates, and warn once.
                model = cls.model().model_validate(data, context=CHECKED)
            return super().load(model, dataclasses.replace(context, resolution_context=own))
        except MistakesFound as error:
            lines = _with_positions(error.mistakes, own.source_position_tree)
        raise OctogenComponentError(f"{cls.__name__} cannot be loaded. Correct its YAML:\n{lines}")


def _find_mistakes(error: ValidationError, data: object, prefix: Path) -> Iterator[Mistake]:
    """Yield the mistakes that a validation of `data` found, one for each field.

    pydantic tells of every branch of a union, and most fields here are one, since a template may
    stand for a value. Only what was found deepest is told.
    """
    by_path: dict[Path, list[ErrorDetails]] = {}
    for each in error.errors(include_url=False):
        by_path.setdefault(_path_in(data, each), []).append(each)
    for path, errors in by_path.items():
        if not any(len(other) > len(path) and other[: len(path)] == path for other in by_path):
            yield (*prefix, *path), _describe(errors)


def _path_in(data: object, error: ErrorDetails) -> Path:
    """Return the location of an error without the names of branches of unions, which it has."""
    path: list[str | int] = []
    for part in error["loc"]:
        if isinstance(data, (list, tuple)):
            data = dict(enumerate(data))
        if isinstance(data, Mapping) and part in data:
            data = data[part]
            path.append(part)
    if error["type"] == "missing":
        path.append(error["loc"][-1])
    return tuple(path)


def _describe(errors: list[ErrorDetails]) -> str:
    """Say what is wrong, without the value."""
    expected = []
    for each in errors:
        kind, context = each["type"], each.get("ctx", {})
        if kind == "extra_forbidden":
            _, _, text = each["msg"].partition(" has ")  # of `refuse_unknown_settings`
            return text or _unknown_of_dagster(each["loc"])
        if kind == "missing":
            return "is required"
        if kind == "literal_error":
            choices = context["expected"]
            known = choices.replace("'", "").replace(" or ", ", ").split(", ")
            return f"no such choice.{did_you_mean(str(each['input']), known)} Choose {choices}"
        if kind == "value_error":
            return str(context["error"])
        if kind.endswith(("_type", "_parsing")) and (takes := _TYPES.get(kind.split("_")[0])):
            expected.append(takes)
        elif kind != "is_instance_of":  # an object, such as a dg.EnvVar, comes from templates only
            return each["msg"]
    choices = [each for each in dict.fromkeys(expected) if each != "text" or len(expected) == 1]
    return f"must be {' or '.join(choices)}"


def _unknown_of_dagster(loc: Path) -> str:
    """Say which field one of Dagster's own models does not have, as `translation` is."""
    *_, model, name = loc
    known = AssetAttributesModel.model_fields if model == AssetAttributesModel.__name__ else ()
    return f"no setting {str(name)!r}.{did_you_mean(str(name), known)}"


def _render(mistake: Mistake) -> str:
    path, text = mistake
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return f"{field.lstrip('.')}: {text}"


def _with_positions(mistakes: Sequence[Mistake], tree: SourcePositionTree | None) -> str:
    """Return a line for each mistake, with its place if the component is of a file."""
    if tree is None:
        return "\n".join(map(_render, mistakes))
    lines = [(tree.lookup_closest_and_path(each[0], None)[0], _render(each)) for each in mistakes]
    lines.sort(key=lambda line: line[0].start)
    return "\n".join(f"{position} - {text}" for position, text in lines)


def _without_unions(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Rewrite a schema so that a mistake is told of the field where it is.

    A validator says of an `anyOf` only that no branch is valid. Dagster makes one of almost every
    field, since a template may stand for its value. Here the type of the value selects the branch.
    Each mapping also lists its fields, which are the choices for a misspelled one.
    """
    definitions = schema.get("$defs", {})

    def rewrite(part: Any) -> Any:
        if isinstance(part, list):
            return [rewrite(each) for each in part]
        if not isinstance(part, Mapping):
            return part
        rewritten = {name: rewrite(value) for name, value in part.items()}
        if part.get("additionalProperties") is False:
            rewritten["propertyNames"] = {"enum": list(part.get("properties", {}))}
        if branches := rewritten.pop("anyOf", None):
            rewritten |= _select(branches, definitions)
        return rewritten

    return dict(rewrite(schema))


def _select(branches: list[dict[str, Any]], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a union whose branch is selected by the type of the value."""
    by_type: dict[str, list[dict[str, Any]]] = {}
    for branch in branches:
        by_type.setdefault(_type_of(branch, definitions), []).append(branch)
    texts = by_type.get("string", [])
    others = by_type.keys() - {"string", "null"}
    # Text beside numbers or choices is a template; beside a list or mapping it may be any text.
    is_template = _TEXT in texts and others <= _SCALARS and (others or len(texts) > 1)
    if is_template:
        by_type["string"] = texts = [text for text in texts if text != _TEXT]
        if not texts:
            del by_type["string"]
    selected: dict[str, Any] = {"type": list(by_type)}
    if rules := [
        _rule(name, found) for name, found in by_type.items() if found != [{"type": name}]
    ]:
        selected["allOf"] = rules
    return {"if": _TEMPLATE_SCHEMA, "else": selected} if is_template else selected


def _rule(name: str, branches: list[dict[str, Any]]) -> dict[str, Any]:
    branch = branches[0] if len(branches) == 1 else {"anyOf": branches}
    return {"if": {"type": name}, "then": branch}


def _type_of(branch: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if reference := branch.get("$ref"):
        branch = definitions[reference.rsplit("/", 1)[-1]]
    return str(branch.get("type", "object"))
