"""Base classes of a component, and of the parts of its YAML, that tell of mistakes in it."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar

import dagster as dg
from dagster.components.resolved.errors import ResolutionException
from dagster_shared.record import as_dict
from pydantic import BaseModel, ConfigDict, RootModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError
from typing_extensions import Self

from octogen_dagster.components.json_schema import without_unions
from octogen_dagster.components.yaml_mistakes import Mistake, Path, find_mistakes, render_mistakes
from octogen_dagster.errors import MissingPackageError, OctogenComponentError

_Resolved = TypeVar("_Resolved")
_TEMPLATE = re.compile(r"\{[{%#]")
_VARIABLE = re.compile(r"\benv\.(\w+)")


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
            raise _MistakesFound([Mistake(tuple(self.path), text)])
        return value


class _MistakesFound(ResolutionException):
    """Mistakes of one part, on their way to the component; Dagster lets its own exception pass."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__(render_mistakes(mistakes, None))
        self.mistakes = mistakes


def invalid(path: Path, text: str) -> ValidationError:
    """Return what a validator raises if a field below its model is not valid.

    Args:
        path: The keys and positions that lead from the model to the field.
        text: What is wrong, and what to do.
    """
    kind = PydanticCustomError("invalid", "{text}", {"text": text})
    line = InitErrorDetails(type=kind, loc=path, input=None)
    return ValidationError.from_exception_data(".".join(map(str, path)), [line])


def placed(
    resolve: Callable[[dg.ResolutionContext, Any], _Resolved],
) -> Callable[[dg.ResolutionContext, Any], _Resolved]:
    """Return a function for `dagster.Resolver` whose ValueError is a mistake with its place."""

    @functools.wraps(resolve)
    def resolve_field(context: dg.ResolutionContext, value: Any) -> _Resolved:
        path = tuple(context.path)
        try:
            return resolve(context, value)
        except ValidationError as error:
            data = value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
            mistakes = find_mistakes(error, BaseModel, data, path)
        except ValueError as error:
            mistakes = [Mistake(path, str(error))]
        raise _MistakesFound(mistakes)

    return resolve_field


class YamlModel(dg.Model, dg.Resolvable):
    """A mapping in the YAML of a component."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    @classmethod
    def resolve_from_model(cls, context: dg.ResolutionContext, model: BaseModel) -> Self:
        """Return the settings that a mapping stands for, with its templates rendered.

        Raises:
            ResolutionException: A value is not valid.
        """
        path = tuple(context.path)
        if not isinstance(model, BaseModel):  # a text, which might have been a template
            raise _MistakesFound([Mistake(path, "must be a mapping")])
        try:
            resolved: Self = super().resolve_from_model(context, model)
        except ValidationError as error:
            data = model.model_dump(exclude_unset=True)
            raise _MistakesFound(find_mistakes(error, cls.model(), data, path)) from None
        except MissingPackageError as error:
            raise _MistakesFound([Mistake(path, str(error))]) from None
        return resolved


class YamlComponent(YamlModel, dg.Component):
    """A component whose mistakes in YAML are told with their file, line, field and choices."""

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """Return a model of any mapping, which has the JSON schema of the attributes.

        `load` validates the attributes, since Dagster's own message of what is not valid shows
        values, which may be secrets, and all branches of a union.
        """
        schema = without_unions(cls.model().model_json_schema())

        class Attributes(RootModel[dict[str, Any]]):
            @classmethod
            def model_json_schema(cls, *_: Any, **__: Any) -> dict[str, Any]:
                return schema

        return Attributes

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Return the component of the attributes of a YAML file.

        Raises:
            OctogenComponentError: The attributes are not valid.
        """
        data = attributes.root if isinstance(attributes, RootModel) else {}
        own = _TextKeepingContext(**as_dict(context.resolution_context))
        try:
            model = cls.model().model_validate(data)
            return super().load(model, dataclasses.replace(context, resolution_context=own))
        except ValidationError as error:
            mistakes = find_mistakes(error, cls.model(), data, ("attributes",))
        except _MistakesFound as error:
            mistakes = error.mistakes
        tree = own.source_position_tree
        raise OctogenComponentError(
            f"{cls.__name__} cannot be loaded. Correct its YAML:\n{render_mistakes(mistakes, tree)}"
        )
