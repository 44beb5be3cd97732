"""Mistakes in the YAML of a component, told with their file, line, field and the valid choices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

from octogen_dagster.settings import did_you_mean

if TYPE_CHECKING:
    from dagster_shared.yaml_utils.source_position import SourcePositionTree
    from pydantic_core import ErrorDetails

Path = tuple["str | int", ...]

_EXPECTED = {
    "bool": "true or false",
    "dict": "a mapping",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "mapping": "a mapping",
    "model": "a mapping",
    "string": "text",
    "tuple": "a list",
}
"""What a field takes, by the first word of pydantic's names for errors."""


class Mistake(NamedTuple):
    """One mistake in a YAML file.

    Args:
        path: The keys and positions that lead to it.
        text: What is wrong and what is valid. It never has a value that may be a secret.
    """

    path: Path
    text: str


def find_mistakes(
    error: ValidationError, model: type[BaseModel], data: object, prefix: Path = ()
) -> list[Mistake]:
    """Return the mistakes that a validation found, one for each field.

    pydantic tells of every branch of a union, and most fields here are one, since a template may
    stand for a value. Only what was found deepest is told.

    Args:
        error: What the validation of `data` raised.
        model: The model that `data` was validated by.
        data: The mapping that was validated, as it is in the file.
        prefix: The path of `data` in the file.
    """
    by_path: dict[Path, list[ErrorDetails]] = {}
    for each in error.errors(include_url=False):
        by_path.setdefault(_path_in(data, each), []).append(each)
    return [
        Mistake((*prefix, *path), _describe(path, errors, model))
        for path, errors in by_path.items()
        if not any(len(other) > len(path) and other[: len(path)] == path for other in by_path)
    ]


def render_mistakes(mistakes: Sequence[Mistake], tree: SourcePositionTree | None) -> str:
    """Return a line for each mistake: file, line, field and text.

    Args:
        mistakes: The mistakes.
        tree: The places of the whole file; None if the component is not of a file.
    """
    if tree is None:
        return "\n".join(map(_render, mistakes))
    lines = [(tree.lookup_closest_and_path(each.path, None)[0], _render(each)) for each in mistakes]
    lines.sort(key=lambda line: line[0].start)
    return "\n".join(f"{position} - {text}" for position, text in lines)


def _render(mistake: Mistake) -> str:
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in mistake.path)
    return f"{field.lstrip('.')}: {mistake.text}"


def _path_in(data: object, error: ErrorDetails) -> Path:
    """Return the location of an error without the names of branches of unions, which it has."""
    path: list[str | int] = []
    for part in error["loc"]:
        if isinstance(data, (list, tuple)):
            data = dict(enumerate(data))
        if not isinstance(data, Mapping) or part not in data:
            continue
        data = data[part]
        path.append(part)
    if error["type"] == "missing":
        path.append(error["loc"][-1])
    return tuple(path)


def _describe(path: Path, errors: list[ErrorDetails], model: type[BaseModel]) -> str:
    # An object, such as a dg.EnvVar, can only come from a template.
    errors = [each for each in errors if each["type"] != "is_instance_of"] or errors
    texts = [text for each in errors if (text := _describe_one(path, each, model))]
    if texts:
        return " ".join(dict.fromkeys(texts))
    expected = dict.fromkeys(_EXPECTED[each["type"].split("_")[0]] for each in errors)
    if len(expected) > 1:
        expected.pop("text", None)  # the template that may stand for any value
    return f"must be {' or '.join(expected)}"


def _describe_one(path: Path, error: ErrorDetails, model: type[BaseModel]) -> str | None:
    """Describe an error; None if it only says of which type the value is not."""
    kind = error["type"]
    context = error.get("ctx", {})
    if kind == "extra_forbidden":
        *parents, name = path
        return _describe_unknown(str(name), list(_models_at(model, parents)))
    if kind == "missing":
        return "is required"
    if kind in ("literal_error", "enum"):
        value, choices = error["input"], context["expected"]
        known = choices.replace("'", "").replace(" or ", ", ").split(", ")
        meant = did_you_mean(str(value), known)
        return f"{value!r} is not a choice.{meant} Choose {choices}"
    if kind in ("value_error", "assertion_error"):
        return str(context["error"])
    if kind.endswith(("_type", "_parsing")) and kind.split("_")[0] in _EXPECTED:
        return None
    return error["msg"]


def _describe_unknown(name: str, models: list[type[BaseModel]]) -> str:
    fields = {field for model in models for field in model.model_fields}
    text = f"no such field.{did_you_mean(name, fields)}"
    for parent in sorted(fields):
        if any(name in model.model_fields for model in _models_at_any(models, parent)):
            return f"{text} It is a field of {parent!r}"
    return f"{text} The fields are {', '.join(sorted(fields))}" if fields else text


def _models_at(model: type[BaseModel], path: Iterable[str | int]) -> Iterable[type[BaseModel]]:
    models: Iterable[type[BaseModel]] = [model]
    for part in path:
        if isinstance(part, str):
            models = list(_models_at_any(models, part))
    return models


def _models_at_any(models: Iterable[type[BaseModel]], name: str) -> Iterable[type[BaseModel]]:
    for model in models:
        if field := model.model_fields.get(name):
            yield from _models_in(field.annotation)


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
