"""Kinds of YAML fields that Dagster does not have."""

from typing import Any, TypeAlias, TypeVar

import dagster as dg
from dagster.components.resolved.scopes import EnvScope
from pydantic import InstanceOf

from octogen_dagster.components.yaml_component import placed

_Settings = TypeVar("_Settings", bound=dg.Resolvable)


class _DeferredEnvironment(EnvScope):
    """The scope `env` of templates, whose variables are read when a step runs."""

    def __call__(self, key: str, default: Any = ...) -> Any:
        return dg.EnvVar(key) if default is ... else super().__call__(key, default)

    def __getattr__(self, key: str) -> Any:
        if key.startswith("jinja"):  # Jinja asks every object of a scope for attributes of its own
            raise AttributeError(key)
        return dg.EnvVar(key)


def _resolve_deferred(context: dg.ResolutionContext, value: Any) -> Any:
    return context.with_scope(env=_DeferredEnvironment()).resolve_value(value)


def deferred(model_field_type: Any, description: str) -> dg.Resolver:
    """The resolver of a field whose `{{ env.NAME }}` becomes a `dagster.EnvVar`.

    So Dagster shows the name of the variable instead of its value, and a code location loads
    without it.

    Args:
        model_field_type: The type in YAML.
        description: What the field is.
    """
    return dg.Resolver(
        _resolve_deferred,
        model_field_type=model_field_type,
        description=description,
        inject_before_resolve=False,
    )


Text: TypeAlias = str | InstanceOf[dg.EnvVar]
"""A text, or the environment variable that has it."""


def switch(settings: type[_Settings], description: str) -> dg.Resolver:
    """The resolver of a field that is `true`, `false` or settings.

    Args:
        settings: The class of the settings; `true` takes its defaults, and `false` is None.
        description: What is switched on.
    """

    @placed
    def resolve(context: dg.ResolutionContext, value: Any) -> _Settings | None:
        if isinstance(value, bool):
            return settings() if value else None
        if isinstance(value, str):
            raise ValueError(f"{value!r} is not a choice. Write true, false or a mapping")
        resolved: _Settings = settings.resolve_from_model(context, value)
        return resolved

    return dg.Resolver(resolve, model_field_type=bool | settings.model(), description=description)
