from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from octogen_dagster.control_plane.login import Login, login
from octogen_dagster.control_plane.login_files import LoginFiles
from octogen_dagster.control_plane.secret_files import SecretFile
from octogen_dagster.control_plane.tokens import access_tokens
from octogen_dagster.control_plane.tools import OctogenMCP
from octogen_dagster.errors import OctogenConnectionError, OctogenMCPAuthenticationError
from tests.api.servers import RawServer, http
from tests.sharing.hostile_hub import HostileHub as Hub
from tests.sharing.hostile_hub import HubFault
from tests.sharing.secrets import leaks


@pytest.fixture
def files(tmp_path: Path) -> LoginFiles:
    return LoginFiles.at(tmp_path / "refresh", tmp_path / "client", tmp_path / "redirect")


def agree(url: str) -> None:
    """A person who agrees to everything."""
    assert httpx.get(url, follow_redirects=True).text == (
        "Octogen has your answer: this window can be closed."
    )


def log_in(
    files: LoginFiles,
    mcp_url: str,
    show: Callable[[str], None] = agree,
    *,
    redirect_uri: str = "http://127.0.0.1:0/callback",
    **options: Any,
) -> Login:
    return login(files, show=show, mcp_url=mcp_url, redirect_uri=redirect_uri, **options)


def parameters(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def returning_with(**changes: str | None) -> Callable[[str], None]:
    """A person whose browser returns with these parameters and the state."""

    def return_(url: str) -> None:
        sent = parameters(url)
        fields = {"state": sent["state"]} | changes
        query = {name: value for name, value in fields.items() if value is not None}
        httpx.get(sent["redirect_uri"], params=query)

    return return_


def test_a_login_writes_what_a_refresh_needs(hub: Hub, files: LoginFiles) -> None:
    hub.rotate_refresh_tokens()
    done = log_in(files, hub.mcp_url)
    assert done.token_endpoint == hub.token_endpoint
    assert files.redirect_uri
    assert done.redirect_uri == files.redirect_uri.read().get_secret_value()
    assert done.client_id == files.client_id.read().get_secret_value()
    for file in files:
        assert file
        assert file.path.stat().st_mode & 0o777 == 0o600
    tokens = access_tokens(
        client_id_file=files.client_id.path,
        refresh_token_file=files.refresh_token.path,
        token_endpoint=done.token_endpoint,
    )
    with OctogenMCP(tokens, hub.mcp_url) as octogen:
        assert octogen.listings() == []
    assert files.client_id.read().get_secret_value() != hub.client_id


def test_the_login_page_gets_a_pkce_challenge_and_asks_for_offline_access(
    hub: Hub, files: LoginFiles
) -> None:
    seen: list[str] = []

    def person(url: str) -> None:
        seen.append(url)
        agree(url)

    log_in(files, hub.mcp_url, person)
    sent = parameters(seen[0])
    assert sent["code_challenge_method"] == "S256"
    assert len(sent["code_challenge"]) == 43
    assert "offline_access" in sent["scope"].split()
    assert sent["redirect_uri"].startswith("http://127.0.0.1:")


def test_a_client_that_is_registered_is_used_again(hub: Hub, files: LoginFiles) -> None:
    first = log_in(files, hub.mcp_url, redirect_uri="http://localhost:0/back/here")
    assert first.redirect_uri.startswith("http://localhost:")
    assert first.redirect_uri.endswith("/back/here")
    files.client_id.path.unlink()
    again = log_in(files, hub.mcp_url, redirect_uri=first.redirect_uri, client_id=first.client_id)
    assert again == first
    assert files.client_id.read().get_secret_value() == first.client_id


def test_a_second_login_replaces_the_first(hub: Hub, files: LoginFiles) -> None:
    log_in(files, hub.mcp_url)
    before = [file.read() for file in files if file]
    log_in(files, hub.mcp_url)
    after = [file.read() for file in files if file]
    assert all(old != new for old, new in zip(before, after, strict=True))


def test_a_refused_login_does_not_write_the_files(hub: Hub, files: LoginFiles) -> None:
    files.client_id.path.write_text("old")
    person = returning_with(error="access_denied", error_description="You said no")
    with pytest.raises(OctogenMCPAuthenticationError, match=r"refused \(access_denied: You said"):
        log_in(files, hub.mcp_url, person)
    assert files.client_id.path.read_text() == "old"
    assert not files.refresh_token.path.exists()


def test_a_code_of_another_login_is_refused(hub: Hub, files: LoginFiles) -> None:
    with pytest.raises(OctogenMCPAuthenticationError, match=r"failed \(Token exchange failed"):
        log_in(files, hub.mcp_url, returning_with(code="made-up"))
    assert not files.refresh_token.path.exists()


def test_a_file_that_cannot_be_locked_is_an_error_before_anybody_logs_in(
    hub: Hub, files: LoginFiles, tmp_path: Path
) -> None:
    nowhere = SecretFile(tmp_path / "typo" / "refresh", "refresh token")
    opened: list[str] = []
    with pytest.raises(OctogenMCPAuthenticationError, match="typo does not exist"):
        log_in(files._replace(refresh_token=nowhere), hub.mcp_url, opened.append)
    assert opened == []


def test_the_person_has_limited_time(hub: Hub, files: LoginFiles) -> None:
    with pytest.raises(OctogenMCPAuthenticationError, match=r"Nobody logged in within 0\.2 s"):
        log_in(files, hub.mcp_url, lambda _: None, timeout=0.2)


def test_a_login_without_a_refresh_token_is_an_error_that_shows_no_token(
    hub: Hub, files: LoginFiles
) -> None:
    def person(url: str) -> None:
        agree(url.replace("+offline_access", "").replace("offline_access+", ""))

    with pytest.raises(OctogenMCPAuthenticationError, match="gave no refresh token") as caught:
        log_in(files, hub.mcp_url, person)
    assert leaks(caught.value, "sandbox-access-") == []
    assert not files.client_id.path.exists()


def test_a_server_that_is_not_octogen_is_an_error(files: LoginFiles) -> None:
    with pytest.raises(OctogenConnectionError, match="got no answer"):
        log_in(files, "http://127.0.0.1:1/mcp/")
    with (
        RawServer(lambda _: http(200, "<h1>Hello</h1>")) as server,
        pytest.raises(OctogenMCPAuthenticationError, match=r"failed \(Unexpected content type"),
    ):
        log_in(files, f"{server.origin}/mcp/")
    with pytest.raises(ValueError, match="would send a token over plain http"):
        log_in(files, "http://mcp.octogen.ai/")


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        ("authorization_endpoint", "The login page 'http://login.example/x' would send a token"),
        ("token_endpoint", "The token endpoint 'http://login.example/x' would send a token"),
    ],
)
def test_a_login_over_plain_http_on_another_machine_does_not_begin(
    files: LoginFiles, endpoint: str, problem: str
) -> None:
    def respond(request: Any) -> list[bytes]:
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
    with RawServer(respond) as server, pytest.raises(OctogenMCPAuthenticationError) as caught:
        log_in(files, f"{server.origin}/mcp/", opened.append)
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
def test_an_unusable_token_response_shows_no_token(
    files: LoginFiles, status: int, answer: Any
) -> None:
    with (
        RawServer(lambda request: respond_as_octogen(request, server, status, answer)) as server,
        pytest.raises(OctogenMCPAuthenticationError) as caught,
    ):
        log_in(files, f"{server.origin}/mcp/", returning_with(code="c"))
    said = "Token exchange failed (400)" if status == 400 else "Invalid token response"
    assert str(caught.value) == (
        f"The login to Octogen's MCP at {server.origin}/mcp/ failed ({said}): check the address, "
        "then try again."
    )
    assert leaks(caught.value, "SECRET") == []


def test_a_refused_registration_is_an_error(files: LoginFiles) -> None:
    with (
        RawServer(lambda request: respond_as_octogen(request, server, register=503)) as server,
        pytest.raises(OctogenMCPAuthenticationError, match=r"failed \(Registration failed: 503\)"),
    ):
        log_in(files, f"{server.origin}/mcp/")


def test_a_server_that_echoes_the_token_shows_none(files: LoginFiles) -> None:
    tokens = {"access_token": "access-SECRET", "refresh_token": "refresh-SECRET"}
    with (
        RawServer(
            lambda request: respond_as_octogen(
                request, server, 200, tokens | {"token_type": "Bearer"}
            )
        ) as server,
        pytest.raises(
            OctogenMCPAuthenticationError, match=r"failed \(no: Bearer \[token\]\)"
        ) as it,
    ):
        log_in(files, f"{server.origin}/mcp/", returning_with(code="c"))
    assert "SECRET" not in str(it.value)


def respond_as_octogen(
    request: Any, server: RawServer, status: int = 200, tokens: Any = None, register: int = 201
) -> list[bytes]:
    """An MCP server with a login, which exchanges a code for `tokens`."""
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


def test_a_port_that_is_taken_is_an_error(hub: Hub, files: LoginFiles) -> None:
    with RawServer(lambda _: http()) as server, pytest.raises(OSError, match="in use"):
        log_in(files, hub.mcp_url, redirect_uri=f"{server.origin}/callback")


def test_a_login_works_in_another_thread(hub: Hub, files: LoginFiles) -> None:
    logins: list[Login] = []
    thread = threading.Thread(target=lambda: logins.append(log_in(files, hub.mcp_url)))
    thread.start()
    thread.join(30)
    assert [done.token_endpoint for done in logins] == [hub.token_endpoint]
    assert files.refresh_token.path.exists()


def test_a_server_that_refuses_the_new_token_is_an_error(hub: Hub, files: LoginFiles) -> None:
    hub.inject(HubFault("unauthorized"))
    with pytest.raises(OctogenMCPAuthenticationError, match="failed"):
        log_in(files, hub.mcp_url)
