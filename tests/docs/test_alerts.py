"""The recipes of docs/alerts.md send alerts to a server of Slack's API and one of mail."""

from __future__ import annotations

import csv
import email
import io
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.policy import default
from functools import partial
from typing import Any

import polars as pl
import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from octogen_dagster import ALERTS_SCHEMA
from tests.api.servers import RawServer, http, in_turn
from tests.docs.blocks import BLOCKS

EVENTS = pl.DataFrame(
    [
        {
            "alert_id": f"{number}",
            "rule": "price_dropped",
            "title": "<!channel> & dress",
            "product_url": f"https://acme.example/{number}",
            "before": 120.0,
            "after": 96.0,
            "currency": "EUR",
        }
        for number in range(20)
    ]
    + [
        {
            "alert_id": "a",
            "rule": "disappeared",
            "uuid": "gone",
            "product_url": "https://acme.example/?a|b&c><!channel>",
            "before": 1100.0,
            "currency": "EUR",
        },
        {
            "alert_id": "b",
            "rule": "out_of_stock",
            "title": '=HYPERLINK("https://evil.example", "Dress")\n<!here>',
            "product_url": "https://acme.example/b",
            "before": 96.0,
            "after": 96.0,
            "currency": "EUR",
        },
        {
            "alert_id": "c",
            "rule": "out_of_stock",
            "title": "-5 °C coat",
            "product_url": "https://acme.example/c",
        },
        {"alert_id": "d", "rule": "out_of_stock", "title": "Hat <!here>"},
        {"alert_id": "e", "rule": "out_of_stock", "title": "Scarf", "product_url": ""},
    ],
    schema=ALERTS_SCHEMA,
)


def recipe(title: str) -> Any:
    """The function of a recipe."""
    [block] = [each for each in BLOCKS if (each.page, each.title) == ("docs/alerts.md", title)]
    names: dict[str, Any] = {}
    exec(block.source, names)
    return names[title.removesuffix(".py")]


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[Any]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_slack_gets_a_message_and_one_that_it_refuses_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = http(body={"ok": False, "error": "not_in_channel"})
    monkeypatch.setenv("SLACK_TOKEN", "xoxb-test")
    with RawServer(in_turn(refused, http(body={"ok": True}))) as server:
        client = partial(WebClient, base_url=f"{server.origin}/api/")
        monkeypatch.setattr("dagster_slack.resources.WebClient", client)
        to_slack = recipe("to_slack.py")
        with pytest.raises(SlackApiError, match="not_in_channel"):
            to_slack(EVENTS)
        to_slack(EVENTS.reverse())
    asked, message = server.received[1], server.received[1].json
    assert (asked.target, asked.headers["authorization"], message["channel"]) == (
        "/api/chat.postMessage",
        "Bearer xoxb-test",
        "#prices",
    )
    assert message["text"].splitlines() == [
        "out_of_stock: Scarf",
        "out_of_stock: Hat &lt;!here&gt;",
        "out_of_stock: <https://acme.example/c|-5 °C coat>",
        'out_of_stock: <https://acme.example/b|=HYPERLINK("https://evil.example", "Dress") '
        "&lt;!here&gt;>, 96.00 EUR",
        "disappeared: <https://acme.example/?a%7Cb&amp;c&gt;&lt;!channel&gt;|gone>, 1,100.00 EUR",
        *[
            f"price_dropped: <https://acme.example/{number}|&lt;!channel&gt; &amp; dress>, "
            "120.00 to 96.00 EUR"
            for number in range(19, 4, -1)
        ],
        "and 5 more",
    ]


def test_a_mail_has_the_events_as_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    mails: list[bytes] = []

    class Mail(socketserver.StreamRequestHandler):
        """Answers each command as a server of mail does."""

        def handle(self) -> None:
            self.wfile.write(b"220 ready\r\n")
            for line in self.rfile:
                command = line.split()[0].upper()
                if command == b"DATA":
                    self.wfile.write(b"354 send\r\n")
                    mails.append(b"".join(iter(self.rfile.readline, b".\r\n")))
                elif command == b"QUIT":
                    self.wfile.write(b"221 bye\r\n")
                    return
                self.wfile.write(b"250 ok\r\n")

    with serving(socketserver.TCPServer(("127.0.0.1", 0), Mail)) as server:
        monkeypatch.setenv("SMTP_HOST", "127.0.0.1")
        monkeypatch.setenv("SMTP_PORT", str(server.server_address[1]))
        recipe("by_mail.py")(EVENTS)
    [mail] = mails
    message = email.message_from_bytes(mail, policy=default)
    assert message["Subject"] == "25 price alerts"
    [attached] = message.iter_attachments()
    rows = list(csv.DictReader(io.StringIO(attached.get_content())))
    assert len(rows) == 25
    assert rows[0]["title"] == "<!channel> & dress"
    assert [row["title"][:8] for row in rows[-4:-2]] == ["'=HYPERL", "'-5 °C c"]
