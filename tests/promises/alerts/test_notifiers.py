"""Slack and mail are told of alerts: over real sockets, escaped, and each event once."""

from __future__ import annotations

import csv
import io
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

import octogen_dagster as od
from octogen_dagster.alerts import EmailNotifier, PriceDropped, SlackNotifier
from octogen_dagster.errors import OctogenNotificationError
from octogen_dagster.schemas import ALERTS_SCHEMA
from tests.api.certificates import make_certificate
from tests.api.servers import RawServer, Received, http, in_turn
from tests.histories import day
from tests.results import stored
from tests.servers.mail import MailServer

OK = http(body="ok")
PASSWORD = "correct horse"
HOOK = "/services/T0/B0/secret"


def event(number: int, **values: Any) -> dict[str, Any]:
    """A drop from 120 to 96 euros."""
    return {
        "alert_id": f"{number}",
        "rule": "price_dropped",
        "catalog_key": "acme",
        "uuid": f"dress-{number}",
        "product_url": f"https://acme.example/{number}",
        "title": "<!channel> & *dress*",
        "brand_name": "Acme",
        "at": day(2),
        "since": day(1),
        "before": 120.0,
        "after": 96.0,
        "change_percent": -20.0,
        "currency": "EUR",
        "in_stock": True,
        **values,
    }


def events(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=ALERTS_SCHEMA)


NO_PRICE = {"before": None, "after": None, "change_percent": None, "rule": "out_of_stock"}
HOSTILE = events(
    event(1),
    event(2, **NO_PRICE, title=None, product_url="https://acme.example/?a|b&c><!channel>"),
    event(3, **NO_PRICE, title='=HYPERLINK("https://evil.example", "Dress")\n<!here>'),
    event(4, **NO_PRICE, title="-5 °C coat", product_url="!channel"),
    event(5, title="Hat", product_url=None, before=96.0, change_percent=0.0, currency="<!here>"),
    event(6, rule="disappeared", title="x" * 10_000, after=None, change_percent=None),
)


def slack(server: RawServer) -> SlackNotifier:
    return SlackNotifier(webhook_url=f"{server.origin}{HOOK}")


def mailer(server: MailServer, **settings: Any) -> EmailNotifier:
    people = {"email_from": "prices@shop.example", "email_to": ["team@shop.example"]}
    given = {"smtp_port": server.port, **people, **settings}
    return EmailNotifier(smtp_host="127.0.0.1", **given)


def slack_lines(asked: Received) -> list[str]:
    """The lines of a message of rich text, in which Slack knows no markup, with links in <>."""
    (block,) = asked.json["blocks"]
    (section,) = block["elements"]
    assert (block["type"], section["type"]) == ("rich_text", "rich_text_section")
    written = []
    for part in section["elements"]:
        assert part["type"] == ("link" if "url" in part else "text")
        assert part["text"]
        written.append(f"<{part['url']}|{part['text']}>" if "url" in part else part["text"])
    return "".join(written).splitlines()


def test_slack_gets_a_message_in_which_no_text_of_a_shop_is_markup() -> None:
    with RawServer(in_turn(OK)) as server:
        slack(server)(HOSTILE)
    [asked] = server.received
    assert (asked.method, asked.target) == ("POST", HOOK)
    assert asked.headers["content-type"] == "application/json"
    assert asked.json["text"] == "6 alerts"
    assert slack_lines(asked) == [
        "price dropped: <https://acme.example/1|<!channel> & *dress*>, acme, "
        "120.00 → 96.00 EUR, -20 %",
        "out of stock: <https://acme.example/?a|b&c><!channel>|https://acme.example/?a…>, acme",
        'out of stock: <https://acme.example/3|=HYPERLINK("https://evi… "Dress") <!here>>, acme',
        "out of stock: -5 °C coat, acme",
        "price dropped: Hat, acme, 96.00 <!here>",
        f"disappeared: <https://acme.example/6|{'x' * 23}…>, acme, 120.00 EUR",
    ]


def test_a_mail_has_the_same_lines_and_a_file_in_which_no_text_is_a_formula() -> None:
    with MailServer() as server:
        mailer(server, email_to=["a@shop.example", "b@shop.example"])(HOSTILE)
    [mail] = server.mails
    assert mail.recipients == ["a@shop.example", "b@shop.example"]
    message = mail.message
    assert (message["Subject"], message["From"]) == ("6 price alerts", "prices@shop.example")
    assert message["Date"]
    body = message.get_body()
    assert body
    lines = body.get_content().splitlines()
    assert lines[0] == (
        "price dropped: <!channel> & *dress* (https://acme.example/1), acme, "
        "120.00 → 96.00 EUR, -20 %"
    )
    assert len(lines) == 6
    [attached] = message.iter_attachments()
    assert attached.get_filename() == "alerts.csv"
    rows = list(csv.DictReader(io.StringIO(attached.get_content())))
    assert [*rows[0]] == ALERTS_SCHEMA.names()
    assert [row["title"][:9] for row in rows[2:4]] == ["'=HYPERLI", "'-5 °C co"]


def test_a_message_says_how_many_events_it_has_no_line_for() -> None:
    many = events(*(event(number, title="Dress") for number in range(12_000)))
    with RawServer(in_turn(OK)) as server, MailServer() as mails:
        slack(server)(many)
        mailer(mails)(many)
    lines = slack_lines(server.received[0])
    assert (len(lines), lines[-1]) == (21, "and 11,980 more")
    [mail] = mails.mails
    assert mail.message["Subject"] == "12,000 price alerts"
    [attached] = mail.message.iter_attachments()
    assert attached.get_content().count("\n") == 10_001


def test_a_value_that_is_null_is_left_out() -> None:
    rows = [event(number, **{name: None}) for number, name in enumerate(ALERTS_SCHEMA)]
    nulls = events(*rows, dict.fromkeys(ALERTS_SCHEMA))
    with RawServer(in_turn(OK)) as server, MailServer() as mails:
        slack(server)(nulls)
        mailer(mails)(nulls)
    lines = slack_lines(server.received[0])
    assert len(lines) == len(nulls)
    assert lines[ALERTS_SCHEMA.names().index("before")].endswith("*dress*>, acme, 96.00 EUR, -20 %")
    assert "None" not in "".join(lines)
    assert len(mails.mails) == 1


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("{origin}/services/T0/B0/secret", "404 no_service"),
        ("http://127.0.0.1:{closed}/services/T0/B0/secret", "Connection refused"),
        ("hooks.slack.com/services/T0/B0/secret", "webhook_url"),
        ("{origin}/services/T0/B0/sec ret", "webhook_url"),
        ("https://user:/T0/@hooks.slack.com/", "webhook_url"),
    ],
)
def test_an_error_of_slack_says_what_happened_and_not_the_webhook(
    url: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free, RawServer(in_turn(http(404, "no_service"))) as server:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
        monkeypatch.setenv("HOOK", url.format(origin=server.origin, closed=closed))
        with pytest.raises(OctogenNotificationError, match=told) as caught:
            SlackNotifier(webhook_url=dg.EnvVar("HOOK"))(HOSTILE)
    error: BaseException | None = caught.value
    while error:
        assert "/T0/" not in f"{error} {error!r}"
        error = error.__cause__ or error.__context__


def test_an_answer_that_redirects_is_no_message_that_was_sent() -> None:
    with RawServer(in_turn(http(302, "moved", location="/login"), http(200, "ok"))) as server:
        with pytest.raises(OctogenNotificationError, match="302 moved"):
            slack(server)(HOSTILE)
        assert len(server.received) == 1


SIGN_IN = f"<html>Sign in to see http://127.0.0.1{HOOK}?x or {HOOK.replace('/', '%2F')}</html>"


@pytest.mark.parametrize("status", [200, 403])
@pytest.mark.parametrize("padding", [0, 160, 190])
def test_a_page_of_a_proxy_is_no_message_that_was_sent_and_shows_no_webhook(
    status: int, padding: int
) -> None:
    page = http(status, "x" * padding + SIGN_IN)
    with RawServer(in_turn(page)) as server, pytest.raises(OctogenNotificationError) as caught:
        slack(server)(HOSTILE)
    error = caught.value
    assert (error.__cause__, error.__context__) == (None, None)
    assert {"T0", "B0", "secret"}.isdisjoint(re.split(r"\W|2F", str(error)))


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The certificate of a server, which clients trust."""
    path = make_certificate(tmp_path / "server.pem")
    monkeypatch.setenv("SSL_CERT_FILE", path)
    return path


LOGIN = {"smtp_user": "prices", "email_password": dg.EnvVar("MAIL_PASSWORD")}


@pytest.mark.parametrize("is_smtps", [False, True])
def test_a_login_is_encrypted(
    is_smtps: bool, certificate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAIL_PASSWORD", PASSWORD)
    login = ("prices", PASSWORD)
    with MailServer(certificate, is_smtps=is_smtps, login=login) as server:
        if is_smtps:
            monkeypatch.setattr("octogen_dagster.alerts.notifiers._SMTPS_PORT", server.port)
        mailer(server, **LOGIN)(HOSTILE)
    [mail] = server.mails
    assert mail.is_encrypted
    assert ("STARTTLS" in server.heard) is not is_smtps


def test_a_server_that_encrypts_is_used_so_without_a_login(certificate: str) -> None:
    with MailServer(certificate) as server:
        mailer(server)(HOSTILE)
    assert server.mails[0].is_encrypted


@pytest.mark.parametrize(
    ("is_trusted", "offers_tls", "told"),
    [
        (True, True, "535, b'5.7.8 denied'"),
        (True, False, "STARTTLS extension not supported"),
        (False, True, "certificate verify failed"),
    ],
)
def test_a_password_is_neither_sent_in_clear_nor_told(
    is_trusted: bool,
    offers_tls: bool,
    told: str,
    certificate: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MAIL_PASSWORD", "wrong horse")
    if not is_trusted:
        monkeypatch.delenv("SSL_CERT_FILE")
    login = ("prices", PASSWORD)
    with (
        MailServer(certificate if offers_tls else None, login=login) as server,
        pytest.raises(OctogenNotificationError, match=told) as caught,
    ):
        mailer(server, **LOGIN)(HOSTILE)
    assert f"127.0.0.1:{server.port}" in str(caught.value)
    assert "horse" not in f"{caught.value!r} {caught.value.__cause__!r}"
    is_heard = any(line.startswith("AUTH") for line in server.heard)
    assert is_heard is (is_trusted and offers_tls)
    assert not server.mails


def test_a_mail_that_was_taken_is_told_no_more_if_the_server_then_closes(
    certificate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAIL_PASSWORD", f"{PASSWORD}\n")  # as of a file
    login = ("prices", PASSWORD)
    with MailServer(certificate, login=login, farewell="421 closing") as server:
        monkeypatch.setenv("MAIL_PORT", str(server.port))
        mailer(server, smtp_port=dg.EnvVar.int("MAIL_PORT"), **LOGIN)(HOSTILE)
    assert len(server.mails) == 1


def test_a_recipient_that_is_refused_keeps_the_others_from_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    addresses = ["a@shop.example", "b@shop.example"]
    with MailServer(refused=["a@shop.example"]) as server:
        mailer(server, email_to=addresses)(HOSTILE)
    assert [mail.recipients for mail in server.mails] == [["b@shop.example"]]
    assert "'a@shop.example'" in caplog.text
    with (
        MailServer(refused=addresses) as server,
        pytest.raises(OctogenNotificationError, match="no such user"),
    ):
        mailer(server, email_to=addresses)(HOSTILE)


def test_settings_that_contradict_each_other_are_refused_without_a_secret() -> None:
    with pytest.raises(ValueError, match="smtp_user and email_password") as caught:
        EmailNotifier(smtp_host="mail", email_from="a@b", email_to=["c@d"], email_password=PASSWORD)
    assert PASSWORD not in str(caught.value)
    with pytest.raises(ValueError, match="at least 1 item"):
        EmailNotifier(smtp_host="mail", email_from="a@b", email_to=[])
    assert PASSWORD not in repr(SlackNotifier(webhook_url=PASSWORD))
    with pytest.raises(OctogenNotificationError, match="variable NO_HOOK, which is not set"):
        SlackNotifier(webhook_url=dg.EnvVar("NO_HOOK"))(HOSTILE)


Tick = Callable[[], None]


@pytest.fixture
def told(tmp_path: Path, instance: dg.DagsterInstance) -> Callable[..., Tick]:
    """Make the tick of a sensor that tells of stored alerts, which were materialized once."""
    history = od.build_product_history_asset(od.build_products_asset("products"))
    alerts = od.build_price_alerts_asset(history, [PriceDropped()])
    events(event(1), event(2)).write_parquet(tmp_path / "products_alerts.parquet")
    instance.report_runless_asset_event(dg.AssetMaterialization(alerts.key))

    def told(name: str, notify: Any) -> Tick:
        sensor = od.build_alert_sensor(alerts, notify, name=name)

        def tick() -> None:
            with dg.build_sensor_context(instance, resources=stored(tmp_path)) as context:
                sensor(context)

        return tick

    return told


def test_a_tick_after_one_that_failed_tells_each_event_once(told: Callable[..., Tick]) -> None:
    answers = [http(500, "busy"), http(429, "rate_limited"), OK]

    def respond(_: Received) -> list[bytes]:
        return answers.pop(0)

    with RawServer(respond) as server, MailServer(answers=["451 4.3.0 try later"]) as mails:
        ticks = [told("of_slack", slack(server)), told("of_mail", mailer(mails))]
        for _ in range(2):
            with pytest.raises(OctogenNotificationError, match=r"2 alerts .* Slack"):
                ticks[0]()
        with pytest.raises(OctogenNotificationError, match="try later"):
            ticks[1]()
        for _ in range(3):
            for tick in ticks:
                tick()
    assert len(server.received) == 3  # two that were refused, and one
    assert len(mails.mails) == 1
    assert mails.mails[0].message["Subject"] == "2 price alerts"
