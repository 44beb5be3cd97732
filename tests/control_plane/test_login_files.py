from __future__ import annotations

from pathlib import Path

import pytest

from octogen_dagster.control_plane.login_files import LoginFiles, default_refresh_token_file
from octogen_dagster.errors import OctogenMCPAuthenticationError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def paths(files: LoginFiles) -> list[str | None]:
    return [str(file.path) if file else None for file in files]


def test_files_that_are_not_named_are_in_the_folder_of_the_login(home: Path) -> None:
    folder = f"{home}/.config/octogen"
    assert paths(LoginFiles.at()) == [
        f"{folder}/mcp.refresh",
        f"{folder}/mcp.client-id",
        f"{folder}/mcp.redirect-uri",
    ]
    assert paths(LoginFiles.at("r", redirect_uri="u")) == ["r", f"{folder}/mcp.client-id", "u"]
    # A redirect URI beside another client's id would be believed to be that client's.
    assert paths(LoginFiles.at("r", "c")) == ["r", "c", None]


def test_only_the_owner_may_enter_the_folder(home: Path) -> None:
    LoginFiles.at("r", "c").make_folder()
    assert list(home.iterdir()) == []
    for _ in range(2):
        LoginFiles.at("r").make_folder()
    assert (home / ".config/octogen").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_is_an_error(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".config").touch()
    with pytest.raises(OctogenMCPAuthenticationError) as caught:
        LoginFiles.at().make_folder()
    assert str(caught.value) == (
        f"The folder {home}/.config/octogen for the login cannot be created: Not a directory. Set "
        "HOME, or name the files of the login."
    )
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # as for a user that the system has not
    with pytest.raises(OctogenMCPAuthenticationError, match="home folder of this user is unknown"):
        LoginFiles.at().make_folder()
    assert default_refresh_token_file() is None


def test_the_default_refresh_token_file_is_there_after_a_login(home: Path) -> None:
    assert default_refresh_token_file() is None
    files = LoginFiles.at()
    files.make_folder()
    files.refresh_token.path.touch()
    assert default_refresh_token_file() == files.refresh_token.path
