"""The YAML of who is told of alerts: a function of the project, Slack or people by mail."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Self

import dagster as dg
from pydantic import (
    BeforeValidator,
    PlainValidator,
    ValidationInfo,
    field_validator,
    model_validator,
)

from octogen_dagster.alerts import notifiers
from octogen_dagster.components.yaml_model import (
    VARIABLE,
    YamlModel,
    check_not_written_out,
    text_for,
)
from octogen_dagster.validation import did_you_mean


class SlackNotifier(notifiers.SlackNotifier):  # named as errors name it
    __doc__ = notifiers.SlackNotifier.__doc__
    _check_url = field_validator("webhook_url", mode="before")(check_not_written_out)


class EmailNotifier(notifiers.EmailNotifier):
    __doc__ = notifiers.EmailNotifier.__doc__
    _check_password = field_validator("email_password", mode="before")(check_not_written_out)


def _imported(path: Any, info: ValidationInfo) -> Callable[..., Any]:
    """Return the function at a dotted path, which begins with a dot if it is beside the file."""
    if callable(path):  # as a template variable of the project is
        return _checked(path, "the function")
    folder = (info.context or {}).get("folder", "")
    absolute = f"{folder}{path}" if str(path).startswith(".") else str(path)
    name, _, function = absolute.rpartition(".")
    if not all(part.isidentifier() for part in absolute.split(".")) or not name:
        raise ValueError(
            "is no dotted path of a function: write one such as my_shops.tell.by_hand, or "
            ".tell.by_hand for the function by_hand of tell.py beside this file"
        )
    try:
        module = importlib.import_module(name)
    except Exception as error:
        # A module that is there may import one that is not.
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise ValueError(f"there is no module {error.name}") from None
        raise ValueError(
            f"the module {name} cannot be imported: {type(error).__name__}: {error}"
        ) from None
    if not hasattr(module, function):
        meant = did_you_mean(function, vars(module))
        raise ValueError(f"the module {name} has no {function}.{meant}")
    return _checked(getattr(module, function), absolute)


def _checked(function: Any, name: str) -> Callable[..., Any]:
    if not callable(function):
        raise ValueError(f"{name} is a {type(function).__name__} and no function")
    try:
        inspect.signature(function).bind("events")
    except TypeError as error:
        raise ValueError(f"{name} cannot be called with a frame of events alone: {error}") from None
    return function  # type: ignore[no-any-return]


class NotifySettings(YamlModel):
    """Who is told of new alerts. Each of them has a sensor."""

    function: Annotated[
        Callable[..., Any] | None, PlainValidator(_imported, json_schema_input_type=str)
    ] = None
    """The dotted path of a function that takes a frame of events; with a dot before it, it is
    beside this file."""
    slack: Annotated[
        SlackNotifier | None,
        text_for(SlackNotifier | None, lambda text: {"webhook_url": text}),
        VARIABLE,
    ] = None
    """The URL of an incoming webhook of Slack, or `webhook_url`."""
    email: Annotated[EmailNotifier | None, VARIABLE] = None
    """`email_from`, `email_to`, `smtp_host`, and `smtp_user` with `email_password`."""
    running: bool = False
    """True starts the sensors with their first deployment."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.function or self.slack or self.email):
            raise ValueError("nobody is told: write function, slack or email")
        return self

    def sensors(self, alerts: str) -> Iterator[tuple[Callable[..., Any], dict[str, Any]]]:
        """Yield each `notify` with the arguments of its sensor, by the name of the alerts."""
        status = dg.DefaultSensorStatus("RUNNING" if self.running else "STOPPED")
        ways = {"sensor": self.function, "slack": self.slack, "email": self.email}
        for way, notify in ways.items():
            if notify is not None:
                yield notify, {"name": f"{alerts}_{way}", "default_status": status}


Notify = Annotated[
    NotifySettings | None,
    BeforeValidator(
        lambda given: given if isinstance(given, Mapping | None) else {"function": given},
        json_schema_input_type=NotifySettings | str,
    ),
]
