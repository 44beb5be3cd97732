"""Validation for settings, names, percentages and optional packages.

Settings are checked when definitions load, so that runs do not fail later.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import re
import warnings
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from octogen_dagster.errors import MissingPackageError

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

_Model = TypeVar("_Model")
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+).*;.*\bextra == ['\"](?P<extra>\w+)['\"]")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the most similar known name, or an empty string."""
    similar = difflib.get_close_matches(name, set(known) - {name}, n=1)
    return f" Did you mean {similar[0]!r}?" if similar else ""


class NamedSettings:
    """Base class for resources: reject positional arguments with a readable error."""

    if not TYPE_CHECKING:  # pydantic's mypy plugin knows the settings' names and types

        def __init__(self, *positional: object, **settings: object) -> None:
            if positional:  # not shown, because one might be an API key
                name, setting = type(self).__name__, next(iter(type(self).model_fields))
                raise TypeError(f"{name} takes keyword arguments only: write {name}({setting}=...)")
            super().__init__(**settings)


def refuse_unknown_settings(
    cls: type[BaseModel], settings: Any, handler: Callable[[Any], _Model]
) -> _Model:
    """Reject unknown settings, and report mistakes in the known ones in the same error.

    This is a model validator with mode `wrap`. pydantic turns it into a class method because its
    first argument is named `cls`.
    """
    from pydantic import ValidationError  # slow to import; some commands check no settings
    from pydantic_core import InitErrorDetails

    known = cls.model_fields
    given = settings if isinstance(settings, dict) else {}
    unknown = [name for name in given if name not in known]
    # Dagster passes None for omitted settings, which pydantic would report as an invalid string.
    missing = [name for name, field in known.items() if field.is_required() and name in given]
    missing = [name for name in missing if given[name] is None]
    if not unknown and not missing:
        return handler(settings)
    mistakes = [
        InitErrorDetails(
            type=_unknown(cls.__name__, str(name), known), loc=(name,), input=settings[name]
        )
        for name in unknown
    ] or [
        InitErrorDetails(
            type=_missing(cls.__name__, name, known[name].description), loc=(name,), input=None
        )
        for name in missing
    ]
    try:
        handler({name: value for name, value in settings.items() if name in known})
    except ValidationError as error:
        for each in error.errors():
            # The missing setting might be the mistyped one.
            is_missing = len(each["loc"]) == 1 and settings.get(each["loc"][0]) is None
            if not is_missing:
                mistakes.append(_init_details(each))
    hide_input = bool(cls.model_config.get("hide_input_in_errors"))
    raise ValidationError.from_exception_data(cls.__name__, mistakes, hide_input=hide_input)


def _init_details(error: ErrorDetails) -> InitErrorDetails:
    """Convert a caught error so that it can be raised together with others."""
    from pydantic_core import InitErrorDetails, PydanticCustomError

    context = {**error.get("ctx", {}), "message": error["msg"]}
    kind = PydanticCustomError(error["type"], "{message}", context)
    return InitErrorDetails(type=kind, loc=error["loc"], input=error["input"])


def _unknown(model: str, name: str, known: Iterable[str]) -> PydanticCustomError:
    from pydantic_core import PydanticCustomError

    meant = did_you_mean(name, known) or f" Use one of {', '.join(sorted(known))}."
    context = {"model": model, "text": f"no setting {name!r}.{meant}"}
    return PydanticCustomError("extra_forbidden", "{model} has {text}", context)


def _missing(model: str, name: str, description: str | None) -> PydanticCustomError:
    from pydantic_core import PydanticCustomError

    context = {"model": model, "name": name, "help": f" {description}" if description else ""}
    return PydanticCustomError("missing", "{model} needs {name}.{help}", context)


def checked_timezone(name: str) -> str:
    """Reject an unknown time zone."""
    try:
        ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ValueError(
            f"unknown time zone {name!r}: use an IANA name such as Europe/Berlin"
        ) from None
    return name


def checked_name(name: str, subject: str = "") -> str:
    """Reject a name that Dagster would reject, and suggest a valid one."""
    if not re.fullmatch(r"[A-Za-z0-9_]+", name):
        meant = re.sub(r"[^A-Za-z0-9_]", "_", name) or "boots"
        raise ValueError(f"{subject}use only letters, digits and _ in a name, such as {meant}")
    return name


def checked_day(day: str) -> str:
    """Reject a date that Dagster cannot parse."""
    try:
        datetime.strptime(day, "%Y-%m-%d")
    except (TypeError, ValueError):
        raise ValueError(f"start_date must be a date such as 2026-11-25, not {day!r}") from None
    return day


def moment_of(of: datetime | date) -> datetime:
    """Return a time in UTC; dates count as midnight UTC and naive times as UTC."""
    given: object = of
    if not isinstance(given, date):
        raise TypeError(
            f"{given!r} is not a time. Pass a datetime.datetime or a datetime.date, such as "
            "datetime.date(2026, 11, 1)."
        )
    moment = of if isinstance(of, datetime) else datetime.combine(of, time())
    try:  # Polars cannot compare columns in UTC with times in other zones.
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except OverflowError:  # datetime.min or datetime.max
        return moment.replace(tzinfo=UTC)


def require_percent(name: str, value: float, least: float = 1) -> None:
    """Reject a percentage outside 0 to 100, and warn if it looks like a fraction."""
    if not 0 <= value <= 100:
        raise ValueError(f"{name} must be a percentage between 0 and 100, not {value:g}")
    if 0 < value < least:
        warn_of_share(name, value)


def warn_of_share(name: str, value: float) -> None:
    """Warn that a percentage looks like a fraction, such as 0.1 for 10 %."""
    text = f"{name} is {value:g} %. If you mean {100 * value:g} %, write {100 * value:g}."
    warnings.warn(text, stacklevel=3)


def require_extras(subject: str, *extras: str) -> None:
    """Raise an error about `subject` if extras it needs are not installed."""
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
