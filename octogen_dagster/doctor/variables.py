"""Resolves the environment variables that a resource names, outside of a run."""

from __future__ import annotations

import os
from typing import TypeVar

import dagster as dg
from pydantic import BaseModel

_Resource = TypeVar("_Resource", bound=BaseModel)


def resolved(resource: _Resource) -> _Resource:
    """Return a resource with the values of the environment variables that it names.

    Args:
        resource: The resource, as a user wrote it or as Dagster passes it to an asset.

    Raises:
        ValueError: A variable is not set.
    """
    values: dict[str, str] = {}
    for field, value in resource:
        if isinstance(value, dg.EnvVar):
            variable = value.env_var_name
            if variable not in os.environ:
                raise ValueError(
                    f"{type(resource).__name__} takes {field} from the environment variable "
                    f"{variable}, which is not set: set it where the code runs."
                )
            values[field] = os.environ[variable]
    return resource.model_copy(update=values) if values else resource
