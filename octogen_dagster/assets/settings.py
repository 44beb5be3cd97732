"""Base classes for resources whose settings can be environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import dagster as dg
from pydantic import BaseModel, ConfigDict, model_validator

from octogen_dagster.errors import OctogenError
from octogen_dagster.validation import name_mistakes


class NamedSettings(BaseModel):
    """Base class for resources. Settings are keyword arguments that are validated at load time."""

    # pydantic's errors quote the rejected value, which might be a secret.
    model_config = ConfigDict(hide_input_in_errors=True, extra="forbid")

    _name_mistakes = model_validator(mode="wrap")(name_mistakes)

    if not TYPE_CHECKING:  # pydantic's mypy plugin knows the settings' names and types

        def __init__(self, *positional: object, **settings: object) -> None:
            if positional:  # not shown, because one might be an API key
                name, setting = type(self).__name__, next(iter(type(self).model_fields))
                raise TypeError(f"{name} takes keyword arguments only: write {name}({setting}=...)")
            super().__init__(**settings)


class Settings(NamedSettings, dg.ConfigurableResource[Any]):
    """Base class for resources whose settings can be `dagster.EnvVar`s.

    The environment variables are read when the settings are used.
    """

    error: ClassVar[type[OctogenError]]
    """The error that is raised if an environment variable is not set."""

    def resolved(self) -> Self:
        """Return the settings with environment variables replaced by their values."""
        return self.model_copy(update={name: self._value(name, value) for name, value in self})

    def _value(self, field: str, given: Any) -> Any:
        if isinstance(given, Mapping):
            return {name: self._value(name, value) for name, value in given.items()}
        if isinstance(given, list):
            return [self._value(field, value) for value in given]
        is_number = isinstance(given, int) and hasattr(given, "name")  # dagster.EnvVar.int
        if not is_number and not isinstance(given, dg.EnvVar):
            return given
        variable = given.name if is_number else given.env_var_name
        value = os.environ.get(variable)
        if not value:
            raise self.error(
                f"{type(self).__name__} takes {field} from the environment variable "
                f"{variable}, which is not set or is empty. Set the variable where "
                "the run or the sensor executes."
            )
        return int(value) if is_number else value
