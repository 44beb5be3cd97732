"""The YAML of who is told of alerts: a function of the project, Slack or people by mail."""

from __future__ import annotations

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
    import_by_path,
    text_for,
)


class SlackNotifier(notifiers.SlackNotifier):  # named as errors name it
    __doc__ = notifiers.SlackNotifier.__doc__
    _check_url = field_validator("webhook_url", mode="before")(check_not_written_out)


class EmailNotifier(notifiers.EmailNotifier):
    __doc__ = notifiers.EmailNotifier.__doc__
    _check_password = field_validator("email_password", mode="before")(check_not_written_out)


def _imported(path: Any, info: ValidationInfo) -> Callable[..., Any]:
    """The function at a dotted path, or the one that a template variable of the project is."""
    if callable(path):
        return _checked(path, "the function")
    example = "my_shops.tell.by_hand, or .tell.by_hand for a function beside this file"
    return _checked(import_by_path(str(path), info, example), str(path))


def _checked(function: Any, name: str) -> Callable[..., Any]:
    if not callable(function):
        raise ValueError(f"{name} is a {type(function).__name__}, not a function")
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
