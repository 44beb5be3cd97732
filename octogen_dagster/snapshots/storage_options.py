"""The options of an object store, whose secrets come from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import dagster as dg

from octogen_dagster.errors import OctogenSnapshotError


def check_no_secrets(options: Mapping[str, Any]) -> None:
    """Refuse an option that has a secret written out: Dagster shows and stores configuration.

    `dg.EnvVar` may stand for any value.

    Raises:
        ValueError: An option that looks like a secret is not a `dg.EnvVar`.
    """
    from octogen_dagster.buckets import is_secret

    for name, value in options.items():
        if _variable(value) is None and is_secret(name, value):
            raise ValueError(
                f"The storage option {name} looks like a secret, and Dagster would show it in the "
                f'UI. Set an environment variable and write "{name}": '
                'dg.EnvVar("NAME_OF_THE_VARIABLE") instead of its value, or leave the option out '
                "and let the object store's library find its credentials."
            )


def resolve_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with the values of the environment variables that they name.

    Raises:
        OctogenSnapshotError: An environment variable is not set.
    """
    return {name: _resolved(value) for name, value in options.items()}


def _resolved(value: Any) -> Any:
    variable = _variable(value)
    if variable is None:
        return value
    found = os.environ.get(variable)
    if found is None:
        raise OctogenSnapshotError(
            f"The storage options name the environment variable {variable}, which is not set. "
            "Set it where the run executes."
        )
    return found


def _variable(value: Any) -> str | None:
    """The variable that a value stands for: Dagster hands `dg.EnvVar("X")` on as `{"env": "X"}`."""
    if isinstance(value, dg.EnvVar):
        return value.env_var_name
    if isinstance(value, dict) and set(value) == {"env"} and isinstance(value["env"], str):
        return value["env"]
    return None
