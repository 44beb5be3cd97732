"""The recipes of docs/alerts.md send alerts to a server of Slack's API and one of mail."""

from __future__ import annotations

import csv
import email
import io
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.policy import default
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs

import polars as pl
import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from octogen_dagster import ALERTS_SCHEMA
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
        for number in range(22)
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
    asked: list[tuple[str, str | None, dict[str, Any]]] = []
    answers = [{"ok": False, "error": "not_in_channel"}, {"ok": True}]

    class Slack(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            is_json = "json" in self.headers["Content-Type"]
            sent = json.loads(body) if is_json else {k: v[0] for k, v in parse_qs(body).items()}
            asked.append((self.path, self.headers["Authorization"], sent))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answers.pop(0)).encode())

        def log_message(self, format: str, *args: Any) -> None: ...

    monkeypatch.setenv("SLACK_TOKEN", "xoxb-test")
    with serving(HTTPServer(("127.0.0.1", 0), Slack)) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}/api/"
        client = partial(WebClient, base_url=url)
        monkeypatch.setattr("dagster_slack.resources.WebClient", client)
        to_slack = recipe("to_slack.py")
        with pytest.raises(SlackApiError, match="not_in_channel"):
            to_slack(EVENTS)
        to_slack(EVENTS)
    path, token, message = asked[1]
    assert (path, token, message["channel"]) == (
        "/api/chat.postMessage",
        "Bearer xoxb-test",
        "#prices",
    )
    first, *_, last = lines = message["text"].splitlines()
    assert (len(lines), last) == (21, "and 2 more")
    assert first == (
        "price_dropped: <https://acme.example/0|&lt;!channel&gt; &amp; dress>, 120.0 to 96.0 EUR"
    )


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
    assert message["Subject"] == "22 price alerts"
    [attached] = message.iter_attachments()
    rows = list(csv.DictReader(io.StringIO(attached.get_content())))
    assert len(rows) == 22
    assert rows[0]["title"] == "<!channel> & dress"
