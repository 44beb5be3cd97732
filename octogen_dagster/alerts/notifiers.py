"""Notifications through Slack and email."""

from __future__ import annotations

import json
import re
import smtplib
import ssl
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import closing, suppress
from email.message import EmailMessage
from email.utils import localtime
from functools import partial
from http.client import HTTPException
from io import StringIO
from typing import TYPE_CHECKING, NamedTuple, Self

import dagster as dg
from pydantic import Field, model_validator

from octogen_dagster.assets.settings import Settings
from octogen_dagster.errors import OctogenNotificationError
from octogen_dagster.masking import masked
from octogen_dagster.printable import count, printable, write_csv

if TYPE_CHECKING:
    import polars as pl

_MAX_LINES = 20
_MAX_TITLE_LENGTH = 150
_MAX_ATTACHED = 10_000
"""Maximum number of events in an attachment (about 2 MB). Mail servers reject large messages."""
_MAX_ANSWER_BYTES, _MAX_REASON_LENGTH = 20_000, 200
_TIMEOUT_SECONDS = 30.0
_SMTPS_PORT = 465
"""The port for implicit TLS; other ports use STARTTLS."""
_URL = re.compile(r"https?://[!-~]{1,2000}")
_WEBHOOK = re.compile(r"https?://[a-z0-9.-]+(:[0-9]+)?/[!-~]+", re.IGNORECASE)
_AGAIN = "The sensor retries at its next tick"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Treats redirects as errors, because urllib drops the message when it follows a redirect."""

    def redirect_request(self, *_: object) -> None:
        """Reject the redirect."""


_OPENER = urllib.request.build_opener(_NoRedirects)


class _Notifier(Settings, ABC):
    error = OctogenNotificationError

    @abstractmethod
    def _send(self, events: pl.DataFrame) -> None:
        """Send a message. Environment variables are already resolved."""

    def __call__(self, events: pl.DataFrame) -> None:
        """Send a message about events.

        Args:
            events: Rows with the columns in `octogen_dagster.schemas.ALERTS_SCHEMA`.

        Raises:
            OctogenNotificationError: Sending failed, or an environment variable is not set.
        """
        self.resolved()._send(events)


class SlackNotifier(_Notifier):
    """Posts alerts to a Slack channel.

    Pass an instance as the `notify` argument of `build_alert_sensor`.

    A message lists the first 20 events, each with a link to the product, and the number of
    remaining events. Messages are sent as rich text, so text from a shop cannot add links, mentions
    or formatting.
    """

    webhook_url: str = Field(
        repr=False,
        description="The Slack webhook's URL. Pass it as a dagster.EnvVar, because anyone with "
        "the URL can post to the channel.",
    )

    def _send(self, events: pl.DataFrame) -> None:
        number = count(len(events), "alert")
        subject = f"{number} could not be sent to Slack"
        url = self.webhook_url.strip()  # secret files end with a line break
        if not _WEBHOOK.fullmatch(url):  # urllib's error would quote it
            raise OctogenNotificationError(
                f"{subject}: webhook_url is not a URL. Set it to the incoming webhook's URL, which "
                "begins with https://hooks.slack.com/."
            )
        lines = [[*line, _Part("\n")] for line in _lines(events)]
        section = {
            "type": "rich_text_section",
            "elements": [part.slack_element() for line in lines for part in line],
        }
        # Slack shows `text` in notifications, which have no blocks.
        blocks = [{"type": "rich_text", "elements": [section]}]
        body = json.dumps({"text": number, "blocks": blocks}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(url, body, headers)  # noqa: S310  the URL is checked above
        if problem := _problem(request):
            # The response can quote the secret path, so mask it and do not chain other errors.
            reason = printable(masked(problem, [request.selector])[:_MAX_REASON_LENGTH])
            raise OctogenNotificationError(
                f"{subject}: {reason}. {_AGAIN}. If the webhook or its channel was deleted, create "
                "a new webhook and set `webhook_url` to the new URL."
            )


def _problem(request: urllib.request.Request) -> str:
    """Post a message to Slack. Return the error, or an empty string if Slack accepted the post."""
    try:
        with _OPENER.open(request, timeout=_TIMEOUT_SECONDS) as response:
            answer = response.read(_MAX_ANSWER_BYTES).decode(errors="replace").strip()
            # Proxies and login pages also return 200.
            return "" if answer == "ok" else f"the response is not 'ok': {answer}"
    except urllib.error.HTTPError as error:
        reason = error.reason
        with suppress(OSError, HTTPException):
            reason = error.read(_MAX_ANSWER_BYTES).decode(errors="replace")
        return f"HTTP {error.code} {reason}"
    except (OSError, HTTPException) as error:
        return f"connection failed, {error}"


class EmailNotifier(_Notifier):
    """Sends alerts by email.

    Pass an instance as the `notify` argument of `build_alert_sensor`.

    An email lists the first 20 events and has a CSV attachment with the first 10,000 events. Text
    from shops is escaped so that spreadsheets do not execute it as formulas. The connection uses
    STARTTLS, or implicit TLS on port 465. The connection is unencrypted only if the server does not
    support STARTTLS and no login is set. The fields have the same names as the arguments of
    `dagster.make_email_on_run_failure_sensor`.
    """

    email_from: str = Field(description="The sender's email address.")
    email_to: list[str] = Field(min_length=1, description="The recipients' email addresses.")
    smtp_host: str = Field(description="The mail server's host name.")
    smtp_port: int = Field(
        default=587, description="The mail server's port. Port 465 uses implicit TLS."
    )
    smtp_user: str | None = Field(
        default=None, description="The user name for the login. Defaults to no login."
    )
    email_password: str | None = Field(
        default=None, repr=False, description="The password, as a dagster.EnvVar."
    )

    @model_validator(mode="after")
    def _check_login(self) -> Self:
        if (self.smtp_user is None) != (self.email_password is None):
            raise ValueError(
                "a login requires smtp_user and email_password. Set both fields, or neither of them"
            )
        return self

    def _send(self, events: pl.DataFrame) -> None:
        number = count(len(events), "price alert")
        try:
            self._deliver(self._mail(events, number))
        except (OSError, ValueError) as error:  # ValueError: a line break or a letter beyond ASCII
            raise OctogenNotificationError(
                f"{number} could not be sent through {self.smtp_host}:{self.smtp_port}: "
                f"{printable(str(error))}. {_AGAIN}. If the error persists, check "
                "`smtp_host`, `smtp_port`, `smtp_user` and `email_password`."
            ) from error

    def _mail(self, events: pl.DataFrame, number: str) -> EmailMessage:
        mail = EmailMessage()
        mail["Subject"], mail["Date"] = number, localtime()
        mail["From"], mail["To"] = self.email_from, ", ".join(self.email_to)
        lines = _lines(events)
        mail.set_content("\n".join("".join(part.plain() for part in line) for line in lines))
        attached = StringIO()
        write_csv(attached, events.columns, events.head(_MAX_ATTACHED).iter_rows())
        mail.add_attachment(attached.getvalue(), subtype="csv", filename="alerts.csv")
        return mail

    def _deliver(self, mail: EmailMessage) -> None:
        tls, is_smtps = ssl.create_default_context(), self.smtp_port == _SMTPS_PORT
        connect: Callable[..., smtplib.SMTP] = smtplib.SMTP
        if is_smtps:
            connect = partial(smtplib.SMTP_SSL, context=tls)
        with closing(connect(self.smtp_host, self.smtp_port, timeout=_TIMEOUT_SECONDS)) as server:
            server.ehlo()
            if not is_smtps and (self.smtp_user or server.has_extn("starttls")):
                server.starttls(context=tls)
            if self.smtp_user and self.email_password:
                # Secret files end with a line break.
                server.login(self.smtp_user.strip(), self.email_password.strip())
            # The email is sent from here on, so an error would make the sensor send it again.
            if refused := server.send_message(mail):
                dg.get_dagster_logger().warning(f"The mail server rejected recipients: {refused}.")
            with suppress(OSError):
                server.quit()


class _Part(NamedTuple):
    """A part of a line, shown as a link if it has a URL."""

    text: str
    url: str = ""

    def slack_element(self) -> dict[str, str]:
        kind = {"type": "link", "url": self.url} if self.url else {"type": "text"}
        return {**kind, "text": self.text}

    def plain(self) -> str:
        return f"{self.text} ({self.url})" if self.url else self.text


def _lines(events: pl.DataFrame) -> list[list[_Part]]:
    """Return a line for each of the first `_MAX_LINES` events, then a line such as `and 5 more`."""
    from octogen_dagster.alerts.update import alert_cells

    lines = []
    for event in events.head(_MAX_LINES).to_dicts():
        cells = alert_cells(event)
        product, url = cells["product"]["text"] or event["uuid"] or "", event["product_url"] or ""
        product = _Part(_one_line(product), url if _URL.fullmatch(url) else "")
        others = [cells["sku"], event["catalog_key"] or "", cells["price"], cells["change"]]
        details = [f", {_one_line(each)}" for each in others if each]
        lines.append([_Part(f"{cells['alert']}: "), product, _Part("".join(details))])
    if len(events) > _MAX_LINES:
        lines.append([_Part(f"and {len(events) - _MAX_LINES:,} more")])
    return [[part for part in line if part.text] for line in lines]


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))[:_MAX_TITLE_LENGTH]
