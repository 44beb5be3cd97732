"""Who is told of alerts without code of one's own: a channel of Slack, and people by mail."""

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
"""The most events in the file of a mail, some 2 MB: servers refuse large mails."""
_MAX_ANSWER_BYTES, _MAX_REASON_LENGTH = 20_000, 200
_TIMEOUT_SECONDS = 30.0
_SMTPS_PORT = 465
"""The port on which TLS begins with the connection; on others STARTTLS does it."""
_URL = re.compile(r"https?://[!-~]{1,2000}")
_WEBHOOK = re.compile(r"https?://[a-z0-9.-]+(:[0-9]+)?/[!-~]+", re.IGNORECASE)
_AGAIN = "The sensor tries again with its next tick"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Makes an answer that redirects an error: what follows it sends no message."""

    def redirect_request(self, *_: object) -> None:
        """Follow none."""


_OPENER = urllib.request.build_opener(_NoRedirects)


class _Notifier(Settings, ABC):
    error = OctogenNotificationError

    @abstractmethod
    def _send(self, events: pl.DataFrame) -> None:
        """Send a message about events, with the values of environment variables."""

    def __call__(self, events: pl.DataFrame) -> None:
        """Send a message about events.

        Args:
            events: Rows with the columns of `octogen_dagster.schemas.ALERTS_SCHEMA`.

        Raises:
            OctogenNotificationError: It could not be sent, or an environment variable is not set.
        """
        self.resolved()._send(events)


class SlackNotifier(_Notifier):
    """The `notify` of `build_alert_sensor` that tells a channel of Slack of alerts.

    A message has a line for each of the first 20 events, with a link to the product, and says how
    many more there are. No text of a shop is a link, a mention or a format: it is rich text, which
    has no markup.
    """

    webhook_url: str = Field(
        repr=False,
        description="The URL of an incoming webhook of Slack, as a dagster.EnvVar, since whoever "
        "has it can write to the channel.",
    )

    def _send(self, events: pl.DataFrame) -> None:
        number = count(len(events), "alert")
        subject = f"Slack got no message about {number}"
        url = self.webhook_url.strip()  # a secret's file ends with a line break
        if not _WEBHOOK.fullmatch(url):  # an error of the library would quote it
            raise OctogenNotificationError(
                f"{subject}: webhook_url is no URL. Write the one that Slack shows of an incoming "
                "webhook, which begins with https://hooks.slack.com/."
            )
        lines = [[*line, _Part("\n")] for line in _lines(events)]
        section = {
            "type": "rich_text_section",
            "elements": [part.of_slack() for line in lines for part in line],
        }
        # Slack shows the text where it shows no blocks, as in a notification.
        blocks = [{"type": "rich_text", "elements": [section]}]
        body = json.dumps({"text": number, "blocks": blocks}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(url, body, headers)  # noqa: S310  the URL is checked above
        if problem := _problem(request):
            # Whoever answers may quote the path, so no error that has seen it is the cause.
            told = printable(masked(problem, [request.selector])[:_MAX_REASON_LENGTH])
            raise OctogenNotificationError(
                f"{subject} ({told}). {_AGAIN}; if the webhook or its channel is gone, give "
                "webhook_url another one."
            )


def _problem(request: urllib.request.Request) -> str:
    """Send a message to Slack, and return why it was not taken; an empty text if it was."""
    try:
        with _OPENER.open(request, timeout=_TIMEOUT_SECONDS) as response:
            answer = response.read(_MAX_ANSWER_BYTES).decode(errors="replace").strip()
            # A proxy or a page that wants a login answers with 200, too.
            return "" if answer == "ok" else f"the answer is not Slack's ok: {answer}"
    except urllib.error.HTTPError as error:
        reason = error.reason
        with suppress(OSError, HTTPException):
            reason = error.read(_MAX_ANSWER_BYTES).decode(errors="replace")
        return f"it refused it, {error.code} {reason}"
    except (OSError, HTTPException) as error:
        return f"it was not reached, {error}"


class EmailNotifier(_Notifier):
    """The `notify` of `build_alert_sensor` that tells people of alerts by mail.

    A mail has a line for each of the first 20 events, and the first 10,000 as a CSV file, in which
    no text of a shop is a formula. The connection is encrypted by STARTTLS, or by TLS at port 465;
    only a server that offers neither and needs no login gets a mail without. The names of the
    fields are those of `dagster.make_email_on_run_failure_sensor`.
    """

    email_from: str = Field(description="The address of the sender.")
    email_to: list[str] = Field(min_length=1, description="The addresses of the recipients.")
    smtp_host: str = Field(description="The host of the mail server.")
    smtp_port: int = Field(default=587, description="Its port; 465 for TLS from the beginning.")
    smtp_user: str | None = Field(default=None, description="The user; None without a login.")
    email_password: str | None = Field(
        default=None, repr=False, description="The user's password, as a dagster.EnvVar."
    )

    @model_validator(mode="after")
    def _check_login(self) -> Self:
        if (self.smtp_user is None) != (self.email_password is None):
            raise ValueError("a login has smtp_user and email_password: write both or neither")
        return self

    def _send(self, events: pl.DataFrame) -> None:
        number = count(len(events), "price alert")
        try:
            self._deliver(self._mail(events, number))
        except (OSError, ValueError) as error:  # ValueError: a line break or a letter beyond ASCII
            raise OctogenNotificationError(
                f"The mail about {number} was not taken by {self.smtp_host}:{self.smtp_port} "
                f"({printable(str(error))}). {_AGAIN}; if that fails too, correct the settings of "
                "the mail server."
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
                # A secret's file ends with a line break.
                server.login(self.smtp_user.strip(), self.email_password.strip())
            # From here on the mail is taken, so an error would send it once more.
            if refused := server.send_message(mail):
                dg.get_dagster_logger().warning(f"The mail server refused recipients: {refused}.")
            with suppress(OSError):
                server.quit()


class _Part(NamedTuple):
    """A part of a line, which is a link if it has a URL."""

    text: str
    url: str = ""

    def of_slack(self) -> dict[str, str]:
        """The part as an element of Slack's rich text."""
        kind = {"type": "link", "url": self.url} if self.url else {"type": "text"}
        return {**kind, "text": self.text}

    def plain(self) -> str:
        return f"{self.text} ({self.url})" if self.url else self.text


def _lines(events: pl.DataFrame) -> list[list[_Part]]:
    """A line for each of the first events."""
    from octogen_dagster.alerts.update import alert_cells

    lines = []
    for event in events.head(_MAX_LINES).to_dicts():
        cells = alert_cells(event)
        product, url = cells["product"]["text"] or event["uuid"] or "", event["product_url"] or ""
        product = _Part(_one_line(product), url if _URL.fullmatch(url) else "")
        others = [cells["sku"], event["catalog_key"] or "", cells["price"], cells["change"]]
        told = [f", {_one_line(each)}" for each in others if each]
        lines.append([_Part(f"{cells['alert']}: "), product, _Part("".join(told))])
    if len(events) > _MAX_LINES:
        lines.append([_Part(f"and {len(events) - _MAX_LINES:,} more")])
    return [[part for part in line if part.text] for line in lines]


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))[:_MAX_TITLE_LENGTH]
