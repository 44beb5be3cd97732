"""Alert rules and notifiers, each imported on first use."""

import importlib
from typing import TYPE_CHECKING

_NOTIFIERS = ("EmailNotifier", "SlackNotifier")

if TYPE_CHECKING:
    from octogen_dagster.alerts.notifiers import EmailNotifier as EmailNotifier
    from octogen_dagster.alerts.notifiers import SlackNotifier as SlackNotifier
    from octogen_dagster.alerts.rules import *  # noqa: F403
else:  # so that a type checker rejects unknown names

    def __getattr__(name: str) -> object:
        if not name.startswith("_") and name in __dir__():
            module = "notifiers" if name in _NOTIFIERS else "rules"
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    rules = importlib.import_module(f"{__name__}.rules")
    return [*rules.__all__, *_NOTIFIERS]
