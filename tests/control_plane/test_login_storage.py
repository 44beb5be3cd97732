from __future__ import annotations

from pathlib import Path

import pytest
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import AnyUrl, SecretStr

from octogen_dagster.control_plane.login_storage import LoginStorage
from octogen_dagster.control_plane.secret_files import SecretFile
from octogen_dagster.errors import OctogenMCPAuthenticationError

TOKENS = OAuthToken(access_token="access-SECRET", refresh_token="refresh-SECRET")


@pytest.fixture
def refresh_token_file(tmp_path: Path) -> SecretFile:
    return SecretFile(tmp_path / "refresh", "refresh token")


@pytest.fixture
def client_id_file(tmp_path: Path) -> SecretFile:
    return SecretFile(tmp_path / "client", "client id")


@pytest.fixture
def storage(refresh_token_file: SecretFile, client_id_file: SecretFile) -> LoginStorage:
    return LoginStorage(refresh_token_file, client_id_file)


def client(secret: str | None = None) -> OAuthClientInformationFull:
    return OAuthClientInformationFull(
        client_id="client",
        client_secret=secret,
        redirect_uris=[AnyUrl("http://127.0.0.1:1/callback")],
    )


async def test_both_files_are_written_when_the_tokens_arrive(
    storage: LoginStorage, refresh_token_file: SecretFile, client_id_file: SecretFile
) -> None:
    await storage.set_client_info(client())
    assert not storage.is_written
    assert not client_id_file.path.exists()
    await storage.set_tokens(TOKENS)
    assert storage.is_written
    assert refresh_token_file.read() == SecretStr("refresh-SECRET")
    assert client_id_file.read() == SecretStr("client")


async def test_stored_tokens_are_not_used_again(storage: LoginStorage) -> None:
    assert await storage.get_client_info() is None
    await storage.set_client_info(client())
    await storage.set_tokens(TOKENS)
    assert await storage.get_client_info() == client()
    assert await storage.get_tokens() is None


async def test_a_client_with_a_secret_is_an_error(
    storage: LoginStorage, client_id_file: SecretFile
) -> None:
    with pytest.raises(OctogenMCPAuthenticationError, match="a public one is needed: report"):
        await storage.set_client_info(client(secret="secret"))
    assert await storage.get_client_info() is None
    assert not client_id_file.path.exists()


@pytest.mark.parametrize("refresh_token", [None, "", "two words"])
async def test_tokens_without_a_refresh_token_are_an_error(
    storage: LoginStorage, client_id_file: SecretFile, refresh_token: str | None
) -> None:
    await storage.set_client_info(client())
    with pytest.raises(OctogenMCPAuthenticationError, match="gave no refresh token") as caught:
        await storage.set_tokens(OAuthToken(access_token="SECRET", refresh_token=refresh_token))
    assert "SECRET" not in str(caught.value)
    assert not client_id_file.path.exists()
    assert not storage.is_written


async def test_the_files_are_written_under_the_lock_of_the_refresh_token(
    storage: LoginStorage, refresh_token_file: SecretFile, client_id_file: SecretFile
) -> None:
    await storage.set_client_info(client())
    refresh_token_file.path.with_name("refresh.lock").mkdir()
    with pytest.raises(OctogenMCPAuthenticationError, match="cannot be locked"):
        await storage.set_tokens(TOKENS)
    assert not client_id_file.path.exists()


async def test_the_tokens_are_masked(storage: LoginStorage) -> None:
    await storage.set_client_info(client())
    await storage.set_tokens(TOKENS)
    assert storage.masked("access-SECRET, refresh-SECRET") == "[token], [token]"
