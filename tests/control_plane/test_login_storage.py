from __future__ import annotations

from pathlib import Path

import pytest
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import AnyUrl, SecretStr

from octogen_dagster.control_plane.login_files import LoginFiles
from octogen_dagster.control_plane.login_storage import LoginStorage
from octogen_dagster.errors import OctogenMCPAuthenticationError

TOKENS = OAuthToken(access_token="access-SECRET", refresh_token="refresh-SECRET")


REDIRECT_URI = "http://127.0.0.1:1/callback"


@pytest.fixture
def files(tmp_path: Path) -> LoginFiles:
    return LoginFiles.at(tmp_path / "refresh", tmp_path / "client", tmp_path / "redirect")


@pytest.fixture
def storage(files: LoginFiles) -> LoginStorage:
    return LoginStorage(files, REDIRECT_URI)


def client(secret: str | None = None) -> OAuthClientInformationFull:
    return OAuthClientInformationFull(
        client_id="client",
        client_secret=secret,
        redirect_uris=[AnyUrl(REDIRECT_URI)],
    )


async def test_the_files_are_written_when_the_tokens_arrive(
    storage: LoginStorage, files: LoginFiles
) -> None:
    await storage.set_client_info(client())
    assert not storage.is_written
    assert not files.client_id.path.exists()
    await storage.set_tokens(TOKENS)
    assert storage.is_written
    assert files.refresh_token.read() == SecretStr("refresh-SECRET")
    assert files.client_id.read() == SecretStr("client")
    assert files.redirect_uri
    assert files.redirect_uri.read() == SecretStr(REDIRECT_URI)


async def test_the_client_of_the_last_login_is_used_again_at_the_same_url(
    storage: LoginStorage, files: LoginFiles
) -> None:
    await storage.set_client_info(client())
    await storage.set_tokens(TOKENS)
    again = LoginStorage(files, REDIRECT_URI)
    elsewhere = LoginStorage(files, "http://127.0.0.1:2/callback")
    nowhere = LoginStorage(files._replace(redirect_uri=None), REDIRECT_URI)
    found = await again.get_client_info()
    assert found
    assert (found.client_id, found.token_endpoint_auth_method) == ("client", "none")
    assert await elsewhere.get_client_info() is None
    assert await nowhere.get_client_info() is None
    assert elsewhere.advice == nowhere.advice == storage.advice == ""
    assert again.advice == (
        f" If the login page does not know the client, delete {files.client_id.path}: the next "
        "login then registers a new one."
    )


async def test_a_given_client_comes_before_that_of_the_last_login(
    storage: LoginStorage, files: LoginFiles
) -> None:
    await storage.set_client_info(client())
    await storage.set_tokens(TOKENS)
    given = LoginStorage(files, REDIRECT_URI, "given")
    found = await given.get_client_info()
    assert found
    assert found.client_id == "given"
    assert given.advice == (
        " If the login page does not know the client, leave it out: the next login then registers "
        "a new one."
    )


async def test_stored_tokens_are_not_used_again(storage: LoginStorage) -> None:
    assert await storage.get_client_info() is None
    await storage.set_client_info(client())
    await storage.set_tokens(TOKENS)
    assert await storage.get_client_info() == client()
    assert await storage.get_tokens() is None


async def test_a_client_with_a_secret_is_an_error(storage: LoginStorage, files: LoginFiles) -> None:
    with pytest.raises(OctogenMCPAuthenticationError, match="a public one is needed: report"):
        await storage.set_client_info(client(secret="secret"))
    assert await storage.get_client_info() is None
    assert not files.client_id.path.exists()


@pytest.mark.parametrize("refresh_token", [None, "", "two words"])
async def test_tokens_without_a_refresh_token_are_an_error(
    storage: LoginStorage, files: LoginFiles, refresh_token: str | None
) -> None:
    await storage.set_client_info(client())
    with pytest.raises(OctogenMCPAuthenticationError, match="gave no refresh token") as caught:
        await storage.set_tokens(OAuthToken(access_token="SECRET", refresh_token=refresh_token))
    assert "SECRET" not in str(caught.value)
    assert not files.client_id.path.exists()
    assert not storage.is_written


async def test_the_files_are_written_under_the_lock_of_the_refresh_token(
    storage: LoginStorage, files: LoginFiles
) -> None:
    await storage.set_client_info(client())
    files.refresh_token.path.with_name("refresh.lock").mkdir()
    with pytest.raises(OctogenMCPAuthenticationError, match="cannot be locked"):
        await storage.set_tokens(TOKENS)
    assert not files.client_id.path.exists()


async def test_the_tokens_are_masked(storage: LoginStorage) -> None:
    await storage.set_client_info(client())
    await storage.set_tokens(TOKENS)
    assert storage.masked("access-SECRET, refresh-SECRET") == "[token], [token]"
