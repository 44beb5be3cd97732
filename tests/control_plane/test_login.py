from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from octogen_dagster.control_plane.login import login
from octogen_dagster.control_plane.secret_files import SecretFile
from octogen_dagster.control_plane.tokens import access_tokens
from octogen_dagster.control_plane.tools import OctogenMCP
from octogen_dagster.errors import OctogenConnectionError, OctogenMCPAuthenticationError
from octogen_dagster.sandbox.hub.faults import HubFault
from octogen_dagster.sandbox.hub.hub import Hub
from tests.api.servers import RawServer, http
from tests.sharing.secrets import leaks


@pytest.fixture
def files(tmp_path: Path) -> dict[str, SecretFile]:
    return {
        "refresh_token_file": SecretFile(tmp_path / "refresh", "refresh token"),
        "client_id_file": SecretFile(tmp_path / "client", "client id"),
    }


def agree(url: str) -> None:
    """A person who agrees to everything."""
    assert httpx.get(url, follow_redirects=True).text == (
        "Octogen has your answer: this window can be closed."
    )


def parameters(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def coming_back_with(**changes: str | None) -> Callable[[str], None]:
    """A person whose browser comes back with these parameters and the state."""

    def come_back(url: str) -> None:
        sent = parameters(url)
        fields = {"state": sent["state"]} | changes
        query = {name: value for name, value in fields.items() if value is not None}
        httpx.get(sent["redirect_uri"], params=query)

    return come_back


def test_a_login_leaves_what_refreshing_needs(hub: Hub, files: dict[str, SecretFile]) -> None:
    hub.settings.rotate_refresh_tokens = True
    endpoint = login(**files, show=agree, mcp_url=hub.mcp_url)
    assert endpoint == hub.token_endpoint
    for file in files.values():
        assert file.path.stat().st_mode & 0o777 == 0o600
    tokens = access_tokens(
        client_id_file=files["client_id_file"].path,
        refresh_token_file=files["refresh_token_file"].path,
        token_endpoint=endpoint,
    )
    with OctogenMCP(tokens, hub.mcp_url) as octogen:
        assert octogen.listings() == []
    assert files["client_id_file"].read().get_secret_value() != hub.client_id


def test_the_login_page_is_asked_for_with_pkce_and_offline_access(
    hub: Hub, files: dict[str, SecretFile]
) -> None:
    seen: list[str] = []

    def person(url: str) -> None:
        seen.append(url)
        agree(url)

    login(**files, show=person, mcp_url=hub.mcp_url)
    sent = parameters(seen[0])
    assert sent["code_challenge_method"] == "S256"
    assert len(sent["code_challenge"]) == 43
    assert "offline_access" in sent["scope"].split()
    assert sent["redirect_uri"].startswith("http://127.0.0.1:")


def test_a_second_login_replaces_the_first(hub: Hub, files: dict[str, SecretFile]) -> None:
    login(**files, show=agree, mcp_url=hub.mcp_url)
    before = [file.read() for file in files.values()]
    login(**files, show=agree, mcp_url=hub.mcp_url)
    after = [file.read() for file in files.values()]
    assert all(old != new for old, new in zip(before, after, strict=True))


def test_a_login_that_is_refused_leaves_the_files_alone(
    hub: Hub, files: dict[str, SecretFile]
) -> None:
    files["client_id_file"].path.write_text("old")
    person = coming_back_with(error="access_denied", error_description="You said no")
    with pytest.raises(OctogenMCPAuthenticationError, match=r"refused \(access_denied: You said"):
        login(**files, show=person, mcp_url=hub.mcp_url)
    assert files["client_id_file"].path.read_text() == "old"
    assert not files["refresh_token_file"].path.exists()


def test_a_code_that_is_not_the_logins(hub: Hub, files: dict[str, SecretFile]) -> None:
    with pytest.raises(OctogenMCPAuthenticationError, match=r"failed \(Token exchange failed"):
        login(**files, show=coming_back_with(code="made-up"), mcp_url=hub.mcp_url)
    assert not files["refresh_token_file"].path.exists()


def test_requests_that_do_not_come_from_the_login_page_do_not_count(
    hub: Hub, files: dict[str, SecretFile]
) -> None:
    def person(url: str) -> None:
        back = parameters(url)["redirect_uri"]
        for query in ("?code=made-up&state=other", "?code=made-up", "", "/favicon.ico"):
            assert httpx.get(f"{back}{query}").status_code == 404
        agree(url)

    login(**files, show=person, mcp_url=hub.mcp_url)
    assert files["refresh_token_file"].path.exists()


@pytest.mark.timeout(20)
def test_connections_that_a_browser_leaves_open_do_not_hold_the_login_up(
    hub: Hub, files: dict[str, SecretFile], caplog: pytest.LogCaptureFixture
) -> None:
    opened: list[socket.socket] = []

    def person(url: str) -> None:
        address = urlsplit(parameters(url)["redirect_uri"])
        for sent in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n"):
            opened.append(socket.create_connection((address.hostname, address.port), timeout=10))
            opened[-1].sendall(sent)
        agree(url)

    login(**files, show=person, mcp_url=hub.mcp_url)
    assert all(map(closed, opened))
    assert [record for record in caplog.records if record.name == "asyncio"] == []


def closed(connection: socket.socket) -> bool:
    """Whether the other side closes it without an answer."""
    with connection:
        try:
            return connection.recv(1) == b""
        except ConnectionResetError:
            return True


def test_a_file_that_cannot_be_written_is_known_before_somebody_logs_in(
    hub: Hub, files: dict[str, SecretFile], tmp_path: Path
) -> None:
    files["refresh_token_file"] = SecretFile(tmp_path / "typo" / "refresh", "refresh token")
    opened: list[str] = []
    with pytest.raises(OctogenMCPAuthenticationError, match="typo does not exist"):
        login(**files, show=opened.append, mcp_url=hub.mcp_url)
    assert opened == []


def test_nobody_logs_in(hub: Hub, files: dict[str, SecretFile]) -> None:
    with pytest.raises(OctogenMCPAuthenticationError, match=r"Nobody logged in within 0\.2 s"):
        login(**files, show=lambda _: None, mcp_url=hub.mcp_url, timeout=0.2)


def test_a_login_without_a_refresh_token(hub: Hub, files: dict[str, SecretFile]) -> None:
    def person(url: str) -> None:
        agree(url.replace("+offline_access", "").replace("offline_access+", ""))

    with pytest.raises(OctogenMCPAuthenticationError, match="gave no refresh token") as caught:
        login(**files, show=person, mcp_url=hub.mcp_url)
    assert leaks(caught.value, "sandbox-access-") == []
    assert not files["client_id_file"].path.exists()


def test_servers_that_are_not_octogens(files: dict[str, SecretFile]) -> None:
    with pytest.raises(OctogenConnectionError, match="got no answer"):
        login(**files, show=agree, mcp_url="http://127.0.0.1:1/mcp/")
    with (
        RawServer(lambda _: http(200, "<h1>Hello</h1>")) as server,
        pytest.raises(OctogenMCPAuthenticationError, match=r"failed \(Unexpected content type"),
    ):
        login(**files, show=agree, mcp_url=f"{server.origin}/mcp/")
    with pytest.raises(ValueError, match="would send a token over plain http"):
        login(**files, show=agree, mcp_url="http://mcp.octogen.ai/")


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        ("authorization_endpoint", "The login page 'http://login.example/x' would send a token"),
        ("token_endpoint", "The token endpoint 'http://login.example/x' would send a token"),
    ],
)
def test_a_login_that_goes_to_another_machine_in_the_clear_is_not_begun(
    files: dict[str, SecretFile], endpoint: str, problem: str
) -> None:
    def answer(request: Any) -> list[bytes]:
        if request.target.startswith("/.well-known/oauth-authorization-server"):
            endpoints = {
                "issuer": server.origin,
                "authorization_endpoint": f"{server.origin}/authorize",
                "token_endpoint": f"{server.origin}/token",
                "registration_endpoint": f"{server.origin}/register",
            }
            here = {"response_types_supported": ["code"], **endpoints}
            return http(body=here | {endpoint: "http://login.example/x"})
        if request.target == "/register":
            return http(201, {"client_id": "x", "redirect_uris": request.json["redirect_uris"]})
        return http(401 if request.method == "POST" else 404)

    opened: list[str] = []
    with RawServer(answer) as server, pytest.raises(OctogenMCPAuthenticationError) as caught:
        login(**files, show=opened.append, mcp_url=f"{server.origin}/mcp/")
    assert "names a login that cannot be trusted" in str(caught.value)
    assert problem in str(caught.value)
    assert opened == []


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize(
    "answer",
    [
        {"refresh_token": "refresh-SECRET", "scope": "x"},
        {"access_token": "access-SECRET", "token_type": "Bearer", "refresh_token": ["SECRET"]},
        {"data": {"refresh_token": "refresh-SECRET"}},
        [{"access_token": "access-SECRET", "refresh_token": "refresh-SECRET"}],
    ],
)
def test_an_odd_answer_to_the_code_shows_no_token(
    files: dict[str, SecretFile], status: int, answer: Any
) -> None:
    with (
        RawServer(lambda request: octogens_answer(request, server, status, answer)) as server,
        pytest.raises(OctogenMCPAuthenticationError) as caught,
    ):
        login(**files, show=coming_back_with(code="c"), mcp_url=f"{server.origin}/mcp/")
    said = "Token exchange failed (400)" if status == 400 else "Invalid token response"
    assert str(caught.value) == (
        f"The login to Octogen's MCP at {server.origin}/mcp/ failed ({said}): check the address, "
        "then try again."
    )
    assert leaks(caught.value, "SECRET") == []


def test_a_registration_that_is_refused(files: dict[str, SecretFile]) -> None:
    with (
        RawServer(lambda request: octogens_answer(request, server, register=503)) as server,
        pytest.raises(OctogenMCPAuthenticationError, match=r"failed \(Registration failed: 503\)"),
    ):
        login(**files, show=agree, mcp_url=f"{server.origin}/mcp/")


def test_a_server_that_echoes_the_token_shows_none(files: dict[str, SecretFile]) -> None:
    tokens = {"access_token": "access-SECRET", "refresh_token": "refresh-SECRET"}
    with (
        RawServer(
            lambda request: octogens_answer(request, server, 200, tokens | {"token_type": "Bearer"})
        ) as server,
        pytest.raises(
            OctogenMCPAuthenticationError, match=r"failed \(no: Bearer \[token\]\)"
        ) as it,
    ):
        login(**files, show=coming_back_with(code="c"), mcp_url=f"{server.origin}/mcp/")
    assert "SECRET" not in str(it.value)


def octogens_answer(
    request: Any, server: RawServer, status: int = 200, tokens: Any = None, register: int = 201
) -> list[bytes]:
    """What an MCP server with a login says, and with `tokens` to the code."""
    if request.target.startswith("/.well-known/oauth-authorization-server"):
        endpoints = {
            f"{name}_endpoint": f"{server.origin}/{path}"
            for name, path in (
                ("authorization", "authorize"),
                ("token", "token"),
                ("registration", "register"),
            )
        }
        return http(
            body={"issuer": server.origin, "response_types_supported": ["code"], **endpoints}
        )
    if request.target == "/register":
        body = {"client_id": "x", "redirect_uris": request.json["redirect_uris"]}
        return http(register, body)
    if request.target == "/token":
        return http(status, tokens)
    bearer = request.headers.get("authorization")
    if bearer and request.method == "POST":
        error = {"code": -32600, "message": f"no: {bearer}"}
        return http(body={"jsonrpc": "2.0", "id": request.json.get("id"), "error": error})
    return http(401 if request.method == "POST" else 404)


def test_a_port_can_be_chosen_and_may_be_taken(hub: Hub, files: dict[str, SecretFile]) -> None:
    with RawServer(lambda _: http()) as server, pytest.raises(OSError, match="in use"):
        login(**files, show=agree, mcp_url=hub.mcp_url, port=server.port)


def test_logging_in_from_another_thread(hub: Hub, files: dict[str, SecretFile]) -> None:
    thread = threading.Thread(target=login, kwargs={**files, "show": agree, "mcp_url": hub.mcp_url})
    thread.start()
    thread.join(30)
    assert files["refresh_token_file"].path.exists()


def test_a_server_that_refuses_even_the_new_token(hub: Hub, files: dict[str, SecretFile]) -> None:
    hub.inject(HubFault("unauthorized"))
    with pytest.raises(OctogenMCPAuthenticationError, match="failed"):
        login(**files, show=agree, mcp_url=hub.mcp_url)
