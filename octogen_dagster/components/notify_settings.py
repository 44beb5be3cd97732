"""Alert recipients in YAML: Slack, email or a function in the project."""

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


class SlackNotifier(notifiers.SlackNotifier):  # error messages show this class name
    __doc__ = notifiers.SlackNotifier.__doc__
    _check_url = field_validator("webhook_url", mode="before")(check_not_written_out)


class EmailNotifier(notifiers.EmailNotifier):
    __doc__ = notifiers.EmailNotifier.__doc__
    _check_password = field_validator("email_password", mode="before")(check_not_written_out)


def _imported(path: Any, info: ValidationInfo) -> Callable[..., Any]:
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
        raise ValueError(
            f"{name} must accept a frame of events as its only argument: {error}"
        ) from None
    return function  # type: ignore[no-any-return]


class NotifySettings(YamlModel):
    """Recipients of new alerts. Each recipient has its own sensor."""

    function: Annotated[
        Callable[..., Any] | None, PlainValidator(_imported, json_schema_input_type=str)
    ] = None
    """Dotted path of a function that accepts a frame of events.

    A path with a leading dot is relative to the folder that contains this file.
    """
    slack: Annotated[
        SlackNotifier | None,
        text_for(SlackNotifier | None, lambda text: {"webhook_url": text}),
        VARIABLE,
    ] = None
    """URL of a Slack incoming webhook."""
    email: Annotated[EmailNotifier | None, VARIABLE] = None
    """Email sender, recipients and server."""
    running: bool = False
    """Start the sensors with their first deployment."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.function or self.slack or self.email):
            raise ValueError("has no recipient. Write function, slack or email")
        return self

    def sensors(self, alerts: str) -> Iterator[tuple[Callable[..., Any], dict[str, Any]]]:
        """Yield each recipient, and the arguments of the alert sensor that notifies it."""
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
