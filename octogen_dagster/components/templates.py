"""The templates of a YAML file: rendered once, with the variables that are not set refused."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple, NoReturn

import dagster as dg
from dagster.components.resolved.errors import ResolutionException

_TEMPLATE = re.compile(r"\{[{%#]")
_ONLY_A_VARIABLE = re.compile(r"\{\{\s*env\.(\w+)\s*\}\}")


class Mistake(ResolutionException):
    """A mistake in YAML, with its place. Dagster lets its own exceptions pass through templates."""

    def __init__(self, context: dg.ResolutionContext, path: Iterable[str | int], text: str) -> None:
        parts = [*context.path, *path]
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
        place, self.line = "", 0
        if tree := context.source_position_tree:
            position, _ = tree.lookup_closest_and_path(parts, None)
            place, self.line = f"{position} - ", position.start.line
        super().__init__(f"{place}{field.lstrip('.')}: {text}")


class Unrendered(NamedTuple):
    """A `translation`, whose templates are rendered for each asset in this context."""

    context: dg.ResolutionContext
    attributes: Any


class Templates(dg.ResolutionContext):
    """A context in which a text that is no template stays as it is, and a variable has a value.

    Dagster renders every text, and reads what comes out as Python: "501" becomes a number. There a
    variable that is not set is None, which is no limit for a budget and a shop `none.com`.
    """

    def resolve_value(self, val: Any, as_type: type | None = None) -> Any:
        if not isinstance(val, str):
            return super().resolve_value(val)
        if not _TEMPLATE.search(val):
            return val
        env = _Environment(self)
        try:
            # By the class, since the new scope is a `Templates` as well and would call this again.
            value = dg.ResolutionContext.resolve_value(self.with_scope(env=env), val)
        except Exception as error:
            if env.not_set and not isinstance(error, Mistake):  # it was given a value that is none
                raise env.not_set[0] from None
            raise
        if isinstance(value, _NotSet):
            raise value.mistake
        return value

    def rendered(
        self, value: Any, variables: set[str], mistakes: list[Mistake], field: str = ""
    ) -> Any:
        """Render all templates of a value, and note mistakes in them and empty texts."""
        if isinstance(value, list):
            places = [self.at_path(position) for position in range(len(value))]
            return [
                place.rendered(each, variables, mistakes, field)
                for place, each in zip(places, value, strict=True)
            ]
        if isinstance(value, dict):
            return {
                name: Unrendered(self, each)
                if name == "translation"
                else self.at_path(name).rendered(
                    each, variables, mistakes, f"{field}.{name}".lstrip(".")
                )
                for name, each in value.items()
            }
        try:
            is_deferred = isinstance(value, str) and any(
                f"{field}.".startswith(f"{variable}.") for variable in variables
            )
            found = _ONLY_A_VARIABLE.fullmatch(value) if is_deferred else None
            if found:
                return dg.EnvVar(found[1])
            rendered = self.resolve_value(value)
            if isinstance(rendered, str) and not rendered.strip():
                raise Mistake(self, (), "is empty: write a value, or remove it")
            return rendered
        except Mistake as mistake:
            mistakes.append(mistake)
        return None


class _Environment:
    """`env` in a template, which notes the variables that are not set."""

    def __init__(self, context: dg.ResolutionContext) -> None:
        self._context = context
        self.not_set: list[Mistake] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("jinja", "__")):  # jinja2 asks every object for these
            raise AttributeError(name)
        return self(name)

    def __call__(self, name: str, *default: Any) -> Any:
        if name in os.environ or default:
            return os.environ.get(name, *default)
        hint = f"Set it, or write \"{{{{ env.{name} or 'a default' }}}}\"."
        text = f"the environment variable {name} is not set. {hint}"
        self.not_set.append(Mistake(self._context, (), text))
        return _NotSet(self.not_set[-1])


class _NotSet:
    """A variable that is not set: it is false, so that `or` and `if` work, and has no value."""

    def __init__(self, mistake: Mistake) -> None:
        self.mistake = mistake

    def __bool__(self) -> bool:
        return False

    def _fail(self) -> NoReturn:
        raise self.mistake

    __str__ = __int__ = __float__ = _fail  # jinja2's filters `int` and `float` have a default
