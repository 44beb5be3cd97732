"""The checks of what a user sets: mistyped names, fractions."""

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence, after a space, that says which name is meant; empty if none is similar."""
    similar = difflib.get_close_matches(name, set(known) - {name}, n=1)
    return f" Did you mean {similar[0]!r}?" if similar else ""


def refuse_unknown_settings(cls: type[BaseModel], settings: Any) -> Any:
    """Return the settings that a model is made of, unless it has none of a name.

    It is a model's validator of the mode `before`. pydantic makes a class method of it, because its
    first argument is named cls.
    """
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
    meant = did_you_mean(name, known) or f" Use one of {', '.join(sorted(known))}."
    text = f"{model} has no setting {name!r}.{meant}"
    return PydanticCustomError("extra_forbidden", "{text}", {"text": text})


def require_fraction(name: str, value: float) -> None:
    """Refuse a setting that is not from 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be a share from 0 to 1 (0.05 is 5 %), not {value}")
