"""Renders the templates in a YAML file, and rejects unset environment variables."""

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
    """An error in a YAML file, with its position.

    It is a subclass of a Dagster exception, because Dagster converts all other exceptions that a
    template raises.
    """

    def __init__(self, context: dg.ResolutionContext, path: Iterable[str | int], text: str) -> None:
        parts = [*context.path, *path]
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
        place, self.line = "", 0
        if tree := context.source_position_tree:
            position, _ = tree.lookup_closest_and_path(parts, None)
            place, self.line = f"{position} - ", position.start.line
        super().__init__(f"{place}{field.lstrip('.')}: {text}")


class Unrendered(NamedTuple):
    """A `translation` with unrendered templates. The templates are rendered for each asset."""

    context: dg.ResolutionContext
    attributes: Any


class Templates(dg.ResolutionContext):
    """Renders templates and rejects unset variables. Strings without templates are not changed.

    Dagster itself renders every string and parses the result as Python, so "501" would become a
    number. An unset variable would become None, which could mean an unlimited budget or the shop
    `none.com`.
    """

    def resolve_value(self, val: Any, as_type: type | None = None) -> Any:
        if not isinstance(val, str):
            return super().resolve_value(val)
        if not _TEMPLATE.search(val):
            return val
        env = _Environment(self)
        try:
            # On the base class, because the new scope is also a `Templates` and would recurse.
            value = dg.ResolutionContext.resolve_value(self.with_scope(env=env), val)
        except Exception as error:
            if env.not_set and not isinstance(error, Mistake):  # caused by the unset variable
                raise env.not_set[0] from None
            raise
        if isinstance(value, _NotSet):
            raise value.mistake
        return value

    def rendered(
        self, value: Any, variables: set[str], mistakes: list[Mistake], field: str = ""
    ) -> Any:
        """Render all templates in a value, and add errors to `mistakes`.

        An empty string counts as an error.
        """
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
                raise Mistake(self, (), "is empty. Write a value, or remove the field")
            return rendered
        except Mistake as mistake:
            mistakes.append(mistake)
        return None


class _Environment:
    """The `env` of a template. It records unset variables."""

    def __init__(self, context: dg.ResolutionContext) -> None:
        self._context = context
        self.not_set: list[Mistake] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("jinja", "__")):  # jinja2 looks these up on every object
            raise AttributeError(name)
        return self(name)

    def __call__(self, name: str, *default: Any) -> Any:
        if name in os.environ or default:
            return os.environ.get(name, *default)
        hint = f"Set it, or add a default: \"{{{{ env.{name} or 'a default' }}}}\"."
        text = f"the environment variable {name} is not set. {hint}"
        self.not_set.append(Mistake(self._context, (), text))
        return _NotSet(self.not_set[-1])


class _NotSet:
    """An unset environment variable in a template.

    The variable is false in `or` and `if`. Any other use raises an error.
    """

    def __init__(self, mistake: Mistake) -> None:
        self.mistake = mistake

    def __bool__(self) -> bool:
        return False

    def _fail(self) -> NoReturn:
        raise self.mistake

    __str__ = __int__ = __float__ = _fail  # jinja2's filters `int` and `float` have a default
