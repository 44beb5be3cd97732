"""Octogen's MCP server and its login, which share no code with the package or its sandbox.

Its refresh tokens rotate: each may be used once, as at Octogen.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.api.servers import RawServer, Received, http

PROJECT = "reader-project"
PRINCIPAL = f"serviceAccount:reader@{PROJECT}.iam.gserviceaccount.com"
CLIENT = "client-of-the-tests"

Answer = Callable[[Received], Iterable[bytes]]


class OctogenServer:
    """An MCP server, its authorization server and its token endpoint, at one port.

    Attributes:
        refresh_token: The refresh token that is good now.
        rotates: True if each refresh replaces it.
        expires_in: The lifetime of access tokens that the token endpoint names.
        tools: The results of tools by their names, or functions from a call's arguments to its
            result; those without one answer an empty list.
        arguments: The arguments of the tools that were carried out.
        calls: The names of what was called: `token`, `initialize`, tools and `DELETE`.
        refusals: The number of refresh tokens that were used a second time.
        grants: The forms that the token endpoint received.
        registration: Further fields of a registered client.
        metadata: Further fields of the authorization server's metadata.
    """

    def __init__(self) -> None:
        self.refresh_token = "refresh-secret-0"
        self.rotates = True
        self.expires_in: Any = 300
        self.tools: dict[str, Any] = {}
        self.calls: list[str] = []
        self.arguments: list[dict[str, Any]] = []
        self.grants: list[dict[str, str]] = []
        self.refusals = 0
        self.clients = {CLIENT}
        self.registration: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self._access_tokens = {"access-secret-0"}
        self._codes: dict[str, str] = {}
        self._faults: dict[str, list[Answer]] = {}
        self._guard = threading.Lock()
        self._server = RawServer(self._respond)

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()

    @property
    def origin(self) -> str:
        return self._server.origin

    @property
    def closing(self) -> threading.Event:
        return self._server.closing

    @property
    def mcp_url(self) -> str:
        return f"{self.origin}/mcp/"

    @property
    def token_endpoint(self) -> str:
        return f"{self.origin}/token"

    @property
    def environment(self) -> dict[str, str]:
        """The addresses, without a login."""
        return {"OCTOGEN_MCP_URL": self.mcp_url, "OCTOGEN_MCP_TOKEN_ENDPOINT": self.token_endpoint}

    @property
    def access_token(self) -> str:
        return "access-secret-0"

    def count(self, name: str) -> int:
        return Counter(self.calls)[name]

    def expire(self) -> None:
        """Refuse the access tokens that were issued so far."""
        self._access_tokens.clear()

    def fail(self, name: str, answer: Answer | list[bytes], times: int = 1) -> None:
        """Give the next calls of a name this answer instead of their own."""
        given = answer if callable(answer) else lambda _: answer
        self._faults.setdefault(name, []).extend([given] * times)

    def _respond(self, request: Received) -> Iterable[bytes]:
        path = urlsplit(request.target).path
        if path == "/mcp/":
            return self._mcp(request)
        if path == "/token":
            return self._fault("token", request) or self._token(request)
        if path == "/register":
            return self._fault("register", request) or self._register(request)
        if path == "/authorize":
            return self._authorize(request)
        if path.startswith("/.well-known/oauth-authorization-server"):
            endpoints = {
                f"{name}_endpoint": f"{self.origin}/{place}"
                for name, place in (
                    ("authorization", "authorize"),
                    ("token", "token"),
                    ("registration", "register"),
                )
            }
            served = {"issuer": self.origin, "response_types_supported": ["code"], **endpoints}
            return http(body=served | self.metadata)
        return http(404)

    def _fault(self, name: str, request: Received) -> Iterable[bytes] | None:
        with self._guard:
            self.calls.append(name)
            faults = self._faults.get(name)
            answer = faults.pop(0) if faults else None
        return answer(request) if answer else None

    def _mcp(self, request: Received) -> Iterable[bytes]:
        if request.method == "DELETE":  # the end of a session
            return self._fault("DELETE", request) or http(200)
        if request.method != "POST":
            return http(405)
        method = request.json["method"]
        params = request.json.get("params") or {}
        name = params["name"] if method == "tools/call" else method
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if bearer not in self._access_tokens:
            return http(401)
        if (given := self._fault(name, request)) is not None:
            return given
        if method == "initialize":
            served = {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "tests", "version": "1"},
            }
            return reply(request, served, mcp_session_id="session")
        if method != "tools/call":
            return http(202)
        self.arguments.append(params["arguments"])
        value = self.tools.get(name, [])
        return reply(
            request, structured(value(**params["arguments"]) if callable(value) else value)
        )

    def _token(self, request: Received) -> list[bytes]:
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        with self._guard:
            self.grants.append(form)
            if form.get("client_id") not in self.clients:
                return http(401, {"error": "invalid_client"})
            if form["grant_type"] == "authorization_code":
                proof = hashlib.sha256(form["code_verifier"].encode()).digest()
                challenge = base64.urlsafe_b64encode(proof).decode().rstrip("=")
                if self._codes.pop(form["code"], None) != challenge:
                    return http(400, {"error": "invalid_grant"})
            elif form["refresh_token"] != self.refresh_token:
                self.refusals += 1
                return http(400, {"error": "invalid_grant"})
            number = len(self.grants)
            access = f"access-secret-{number}"
            self._access_tokens.add(access)
            if self.rotates:
                self.refresh_token = f"refresh-secret-{number}"
            return http(
                body={
                    "access_token": access,
                    "token_type": "Bearer",
                    "expires_in": self.expires_in,
                    "refresh_token": self.refresh_token,
                }
            )

    def _register(self, request: Received) -> list[bytes]:
        client = f"client-{len(self.clients)}"
        self.clients.add(client)
        registered = {"client_id": client, "redirect_uris": request.json["redirect_uris"]}
        return http(201, registered | self.registration)

    def _authorize(self, request: Received) -> list[bytes]:
        """Let the person that opens the login page agree at once."""
        sent = parameters(request.target)
        code = f"code-{len(self._codes)}"
        self._codes[code] = sent["code_challenge"]
        query = urlencode({"code": code, "state": sent["state"]})
        return http(302, location=f"{sent['redirect_uri']}?{query}")


def parameters(url: str) -> dict[str, str]:
    """The parameters of a URL, each once."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def reply(request: Received, result: Any, **headers: Any) -> list[bytes]:
    """The response with the result of a call."""
    body = {"jsonrpc": "2.0", "id": request.json.get("id"), "result": result}
    return http(body=body, **headers)


def refuse(request: Received, **error: Any) -> list[bytes]:
    """The response with the JSON-RPC error of a call."""
    return http(body={"jsonrpc": "2.0", "id": request.json.get("id"), "error": error})


def structured(value: Any) -> dict[str, Any]:
    """The result of a tool that has this value."""
    return text_result("ignored", structuredContent={"result": value})


def text_result(*texts: str, **fields: Any) -> dict[str, Any]:
    """The result of a tool that returns text."""
    content = [{"type": "text", "text": text} for text in texts]
    return {"content": content, "isError": False} | fields
