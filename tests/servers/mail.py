"""A server of mail over a raw socket, which speaks as much SMTP as a client needs."""

from __future__ import annotations

import base64
import email
import socketserver
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from email.policy import default
from threading import Thread
from typing import NamedTuple, Self


class Mail(NamedTuple):
    """A mail that was accepted."""

    recipients: list[str]
    message: EmailMessage
    is_encrypted: bool


class MailServer:
    """Accepts mails on loopback.

    Args:
        certificate: A PEM file with a key and a certificate; with it STARTTLS is offered.
        is_smtps: True if TLS begins with the connection.
        login: The user and the password that it wants before a mail.
        refused: Recipients that it refuses.
        answers: What it says to the content of a mail, in turn; else that it is accepted.
        farewell: What it says at the end.
    """

    def __init__(
        self,
        certificate: str | None = None,
        *,
        is_smtps: bool = False,
        login: tuple[str, str] | None = None,
        refused: Sequence[str] = (),
        answers: Sequence[str] = (),
        farewell: str = "221 bye",
    ) -> None:
        self.farewell = farewell
        self.login, self.refused, self.answers = login, refused, [*answers]
        self.is_smtps, self.mails, self.heard = is_smtps, list[Mail](), list[str]()
        self.context: ssl.SSLContext | None = None
        if certificate:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate)
        self._server = _Server(self)
        self.port = int(self._server.server_address[1])
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, owner: MailServer) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: a client that does not trust the certificate is part of the tests."""


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        owner, self.recipients, self.is_encrypted = self.server.owner, list[str](), False
        if owner.is_smtps:
            self._encrypt()
        self._say("220 ready")
        while line := self.rfile.readline().decode().strip():
            owner.heard.append(line)
            verb = line.split()[0].upper()
            self._say(getattr(self, f"_{verb.lower()}", lambda _: "250 ok")(line))
            if verb == "STARTTLS":
                self._encrypt()
            if verb == "QUIT":
                return

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())

    def _encrypt(self) -> None:
        assert self.server.owner.context
        self.request = self.server.owner.context.wrap_socket(self.request, server_side=True)
        self.is_encrypted = True
        self.setup()

    def _ehlo(self, _: str) -> str:
        owner, offered = self.server.owner, ["mail.example"]
        if owner.context and not self.is_encrypted:
            offered.append("STARTTLS")
        if owner.login:
            offered.append("AUTH PLAIN")
        return "\r\n".join([*(f"250-{each}" for each in offered), "250 8BITMIME"])

    def _starttls(self, _: str) -> str:
        return "220 go ahead"

    def _auth(self, line: str) -> str:
        _, *given = base64.b64decode(line.split()[2]).decode().split("\0")
        return "235 welcome" if tuple(given) == self.server.owner.login else "535 5.7.8 denied"

    def _mail(self, _: str) -> str:
        self.recipients = []
        return "250 ok"

    def _rcpt(self, line: str) -> str:
        address = line.partition("<")[2].partition(">")[0]
        if address in self.server.owner.refused:
            return "550 5.1.1 no such user"
        self.recipients.append(address)
        return "250 ok"

    def _data(self, _: str) -> str:
        owner = self.server.owner
        self._say("354 go on")
        content = b"".join(iter(self.rfile.readline, b".\r\n"))
        answer = owner.answers.pop(0) if owner.answers else "250 ok"
        if answer.startswith("250"):
            message = email.message_from_bytes(content, policy=default)
            assert isinstance(message, EmailMessage)
            owner.mails.append(Mail(self.recipients, message, self.is_encrypted))
        return answer

    def _quit(self, _: str) -> str:
        return self.server.owner.farewell
