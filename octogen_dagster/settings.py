"""The checks of what a user sets: mistyped names, fractions, features whose packages are missing.

They are made when definitions load, so that no run fails later.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from octogen_dagster.errors import MissingPackageError

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import PydanticCustomError

_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+).*;.*\bextra == ['\"](?P<extra>\w+)['\"]")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence, after a space, that says which name is meant; empty if none is similar."""
    similar = difflib.get_close_matches(name, set(known) - {name}, n=1)
    return f" Did you mean {similar[0]!r}?" if similar else ""


def refuse_unknown_settings(cls: type[BaseModel], settings: Any) -> Any:
    """Return the settings that a model is made of, unless it has none of a name.

    It is a model's validator of the mode `before`. pydantic makes a class method of it, because its
    first argument is named cls.
    """
    from pydantic import ValidationError  # a command that checks no settings starts without it
    from pydantic_core import InitErrorDetails

    if not isinstance(settings, dict):
        return settings
    known = cls.model_fields
    mistakes = [
        InitErrorDetails(type=_unknown(cls.__name__, str(name), known), loc=(name,), input=value)
        for name, value in settings.items()
        if name not in known
    ]
    if mistakes:
        raise ValidationError.from_exception_data(cls.__name__, mistakes)
    return settings


def _unknown(model: str, name: str, known: Iterable[str]) -> PydanticCustomError:
    from pydantic_core import PydanticCustomError

    meant = did_you_mean(name, known) or f" Use one of {', '.join(sorted(known))}."
    text = f"{model} has no setting {name!r}.{meant}"
    return PydanticCustomError("extra_forbidden", "{text}", {"text": text})


def checked_name(name: str, subject: str = "") -> str:
    """Refuse a name that Dagster refuses, and say one that it takes."""
    if not re.fullmatch(r"[A-Za-z0-9_]+", name):
        meant = re.sub(r"[^A-Za-z0-9_]", "_", name) or "boots"
        raise ValueError(f"{subject}a name has letters, digits and _ only: write {meant}")
    return name


def require_fraction(name: str, value: float) -> None:
    """Refuse a setting that is not from 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be a share from 0 to 1 (0.05 is 5 %), not {value}")


def require_extras(subject: str, *extras: str) -> None:
    """Refuse a feature, the subject of the message, that needs extras which are not installed."""
    missing = {extra: _missing_packages(extra) for extra in extras}
    if names := [name for packages in missing.values() for name in packages]:
        wanted = ",".join(extra for extra, packages in missing.items() if packages)
        raise MissingPackageError(
            f'{subject} needs {", ".join(names)}: pip install "octogen-dagster[{wanted}]"'
        )


def _missing_packages(extra: str) -> list[str]:
    lines = importlib.metadata.requires("octogen-dagster") or ()
    requirements = [found for line in lines if (found := _REQUIREMENT.match(line))]
    packages = [found["name"] for found in requirements if found["extra"] == extra]
    return [name for name in packages if not _is_installed(name)]


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
