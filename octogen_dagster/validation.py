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
    from pydantic_core import ErrorDetails, InitErrorDetails

_Model = TypeVar("_Model")
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+).*;.*\bextra == ['\"](?P<extra>\w+)['\"]")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the most similar known name, or an empty string."""
    similar = difflib.get_close_matches(name, set(known) - {name}, n=1)
    return f" Did you mean {similar[0]!r}?" if similar else ""


def name_mistakes(cls: type[BaseModel], settings: Any, handler: Callable[[Any], _Model]) -> _Model:
    """Improve validation errors: suggest names for unknown settings and describe missing ones.

    This is a model validator with mode `wrap`. pydantic turns it into a class method because its
    first argument is named `cls`.
    """
    from pydantic import ValidationError  # slow to import; some commands check no settings

    try:
        return handler(settings)
    except ValidationError as error:
        mistakes = error.errors()
    if any(_is_unknown(each) for each in mistakes):
        # The missing setting might be the mistyped one.
        mistakes = [each for each in mistakes if not _is_missing(cls, each)]
    named = [_named(cls, each) for each in mistakes]
    hide_input = bool(cls.model_config.get("hide_input_in_errors"))
    raise ValidationError.from_exception_data(cls.__name__, named, hide_input=hide_input)


def _is_unknown(mistake: ErrorDetails) -> bool:
    return mistake["type"] == "extra_forbidden" and len(mistake["loc"]) == 1


def _is_missing(cls: type[BaseModel], mistake: ErrorDetails) -> bool:
    """True if a required setting is missing. Dagster passes None for missing settings."""
    field = cls.model_fields.get(str(mistake["loc"][0])) if len(mistake["loc"]) == 1 else None
    is_omitted = mistake["type"] == "missing" or mistake["input"] is None
    return field is not None and field.is_required() and is_omitted


def _named(cls: type[BaseModel], mistake: ErrorDetails) -> InitErrorDetails:
    from pydantic_core import InitErrorDetails, PydanticCustomError

    kind, text, known = mistake["type"], mistake["msg"], cls.model_fields
    name = str(mistake["loc"][0]) if mistake["loc"] else ""
    context = mistake.get("ctx", {})
    if _is_missing(cls, mistake):
        kind, text = "missing", f"{cls.__name__} needs {name}. {known[name].description or ''}"
    elif _is_unknown(mistake):
        meant = did_you_mean(name, known) or f" Use one of {', '.join(sorted(known))}."
        context = {"text": f"no setting {name!r}.{meant}"}
        text = f"{cls.__name__} has {context['text']}"
    error = PydanticCustomError(kind, "{message}", {**context, "message": text.rstrip()})
    return InitErrorDetails(type=error, loc=mistake["loc"], input=mistake["input"])


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
        raise ValueError(f"start_date must be a date such as 2026-11-25; got {day!r}") from None
    return day


def moment_of(of: datetime | date) -> datetime:
    """Convert a time or date to UTC. Treat a date as midnight, and a naive time as UTC."""
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
        raise ValueError(f"{name} must be a percentage between 0 and 100; got {value:g}")
    if 0 < value < least:
        warn_of_share(name, value)


def warn_of_share(name: str, value: float) -> None:
    """Warn that a percentage looks like a fraction, such as 0.1 for 10 %."""
    text = f"{name} is {value:g} %. If you mean {100 * value:g} %, write {100 * value:g}."
    warnings.warn(text, stacklevel=3)


def require_extras(subject: str, *extras: str) -> None:
    """Raise an error if an extra is not installed. The message begins with `subject`."""
    missing = {extra: _missing_packages(extra) for extra in extras}
    if names := [name for packages in missing.values() for name in packages]:
        wanted = ",".join(extra for extra, packages in missing.items() if packages)
        raise MissingPackageError(
            f'{subject} needs {", ".join(names)}. Add "octogen-dagster[{wanted}]" to your '
            "project's dependencies."
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
