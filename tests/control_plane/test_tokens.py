from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from octogen_dagster.control_plane.login_files import LoginFiles
from octogen_dagster.control_plane.token_command import CommandToken
from octogen_dagster.control_plane.token_refresh import RefreshedToken
from octogen_dagster.control_plane.tokens import GivenToken, access_tokens
from octogen_dagster.errors import OctogenMCPAuthenticationError, OctogenMCPError
from tests.control_plane.servers import QUICK
from tests.sharing.hostile_hub import HostileHub as Hub
from tests.sharing.hostile_hub import HubFault

REFRESH, ACCESS = "refresh-0123456789", "access-0123456789"


def test_a_given_token_is_returned_until_it_is_refused() -> None:
    tokens = GivenToken(f" {ACCESS}\n")
    assert tokens.token() == SecretStr(ACCESS)
    with pytest.raises(OctogenMCPAuthenticationError, match="is refused; they live for some five"):
        tokens.token(refused=SecretStr(ACCESS))


@pytest.mark.parametrize("token", ["", " ", "two words", "é"])
def test_a_given_token_must_be_one_word(token: str) -> None:
    with pytest.raises(OctogenMCPAuthenticationError, match="was given is not a token"):
        GivenToken(token)


def test_a_command_comes_before_a_file_before_a_refresh_token_before_an_access_token(
    hub: Hub, tmp_path: Path
) -> None:
    everything: dict[str, Any] = {
        "token_command": "echo x",
        "client_id": hub.client_id,
        "refresh_token": hub.refresh_token,
        "refresh_token_file": tmp_path / "refresh",
        "access_token": ACCESS,
        "token_endpoint": hub.token_endpoint,
    }
    assert isinstance(access_tokens(**everything), CommandToken)
    del everything["token_command"]
    tokens = access_tokens(**everything)
    assert isinstance(tokens, RefreshedToken)
    with pytest.raises(OctogenMCPAuthenticationError, match=f"{tmp_path}/refresh cannot be read"):
        tokens.token()
    del everything["refresh_token_file"]
    tokens = access_tokens(**everything)
    assert isinstance(tokens, RefreshedToken)
    assert tokens.token() != SecretStr(ACCESS)
    del everything["refresh_token"]
    assert isinstance(access_tokens(**everything), GivenToken)


def test_the_client_id_file_is_read_when_it_is_needed_and_no_client_id_is_given(
    hub: Hub, tmp_path: Path
) -> None:
    client_id = tmp_path / "client"
    access_tokens(
        client_id=hub.client_id,
        client_id_file=client_id,
        refresh_token=hub.refresh_token,
        token_endpoint=hub.token_endpoint,
    ).token()
    tokens = access_tokens(
        client_id_file=client_id,
        refresh_token=hub.refresh_token,
        token_endpoint=hub.token_endpoint,
    )
    client_id.write_text(hub.client_id)
    tokens.token()
    assert hub.calls[-1].arguments == {"grant_type": "refresh_token", "client_id": hub.client_id}


def test_the_files_of_the_last_login_are_used_when_nothing_else_is_set(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    files = LoginFiles.at()
    files.make_folder()
    files.refresh_token.path.write_text(hub.refresh_token)
    files.client_id.path.write_text(hub.client_id)
    assert access_tokens(token_endpoint=hub.token_endpoint).token()
    files.client_id.path.write_text("another")
    assert access_tokens(client_id=hub.client_id, token_endpoint=hub.token_endpoint).token()
    assert isinstance(access_tokens(access_token=ACCESS), GivenToken)


def test_a_refresh_token_is_written_to_its_file_if_the_file_is_empty(
    hub: Hub, tmp_path: Path
) -> None:
    hub.rotate_refresh_tokens()
    file = tmp_path / "refresh"
    file.write_text("\n")
    settings: dict[str, Any] = {"client_id": hub.client_id, "token_endpoint": hub.token_endpoint}
    for _ in range(2):  # the second time the variable is stale
        access_tokens(
            refresh_token=hub.refresh_token if not file.read_text().strip() else "spent",
            refresh_token_file=file,
            **settings,
        ).token()
        assert file.read_text() == f"{hub.refresh_token}\n"


def test_the_retry_policy_applies_to_the_token_endpoint(hub: Hub) -> None:
    hub.inject(HubFault("http_status", 503, method="token"))
    tokens = access_tokens(
        client_id=hub.client_id,
        refresh_token=hub.refresh_token,
        token_endpoint=hub.token_endpoint,
        retry=QUICK,
    )
    with pytest.raises(OctogenMCPError, match="answered 503"):
        tokens.token()
    assert len(hub.calls) == QUICK.attempts


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {},
            "There is no login to Octogen's MCP in ~/.config/octogen/mcp.refresh: run "
            "`octogen-dagster login`; or set OCTOGEN_MCP_REFRESH_TOKEN_FILE and "
            "OCTOGEN_MCP_CLIENT_ID_FILE to the files of a login elsewhere, or OCTOGEN_MCP_TOKEN_",
        ),
        ({"client_id": "x"}, "There is no login to Octogen's MCP"),
        ({"refresh_token": REFRESH}, "its id is missing: set OCTOGEN_MCP_CLIENT_ID_FILE"),
    ],
)
def test_a_configuration_that_is_missing_or_incomplete_is_an_error(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(OctogenMCPAuthenticationError, match=message):
        access_tokens(**settings)


def test_a_token_endpoint_in_the_clear_on_another_machine_is_an_error() -> None:
    with pytest.raises(ValueError, match="would send a token over plain http"):
        access_tokens(refresh_token=REFRESH, client_id="x", token_endpoint="http://auth.example/")
