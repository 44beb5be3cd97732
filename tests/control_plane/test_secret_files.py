from __future__ import annotations

import errno
import os
import secrets
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread

import pytest
from pydantic import SecretStr

from octogen_dagster.control_plane.secret_files import SecretFile
from octogen_dagster.errors import OctogenMCPAuthenticationError, OctogenTimeoutError


@pytest.fixture
def file(tmp_path: Path) -> SecretFile:
    return SecretFile(tmp_path / "refresh", "refresh token")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_only_the_owner_may_read_what_was_written(file: SecretFile) -> None:
    file.path.write_text("old\n")
    file.path.chmod(0o644)
    file.write(SecretStr("new"))
    assert file.read() == SecretStr("new")
    assert file.path.read_text() == "new\n"
    assert mode(file.path) == 0o600
    with file.locked():
        assert [mode(entry) for entry in file.path.parent.iterdir()] == [0o600, 0o600]


def test_a_link_stays_a_link(file: SecretFile) -> None:
    kept = file.path.with_name("kept")
    kept.write_text("old")
    file.path.symlink_to(kept)
    file.write(SecretStr("new"))
    assert file.path.is_symlink()
    assert kept.read_text() == "new\n"


@pytest.mark.parametrize("link", [False, True])
def test_a_file_that_somebody_put_where_it_is_written_is_not_written_to(
    file: SecretFile, monkeypatch: pytest.MonkeyPatch, link: bool
) -> None:
    taken = file.path.with_name(".refresh.taken.unfinished")
    theirs = file.path.with_name("theirs")
    theirs.write_text("theirs")
    theirs.chmod(0o644)
    if link:
        taken.symlink_to(theirs)
    else:
        taken.hardlink_to(theirs)
    names = iter(["taken", "free"])
    monkeypatch.setattr(secrets, "token_hex", lambda _: next(names))
    file.write(SecretStr("new"))
    assert file.read() == SecretStr("new")
    assert mode(file.path) == 0o600
    assert theirs.read_text() == "theirs"


def test_what_killed_writers_left_goes_after_a_while_and_nothing_else(file: SecretFile) -> None:
    old, young, other = (
        file.path.with_name(f".refresh.{name}") for name in ("1.unfinished", "2.unfinished", "bak")
    )
    for left in (old, young, other):
        left.write_text("x")
    for left in (old, other):
        os.utime(left, (0, 0))
    file.write(SecretStr("new"))
    assert sorted(os.listdir(file.path.parent)) == [young.name, other.name, "refresh"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"two words", "does not hold one word"),
        (b"one\ntwo\n", "does not hold one word"),
        (b"caf\xc3\xa9", "is not text"),
    ],
)
def test_a_file_that_holds_no_secret(file: SecretFile, content: bytes | None, problem: str) -> None:
    if content is not None:
        file.path.write_bytes(content)
    with pytest.raises(OctogenMCPAuthenticationError) as caught:
        file.read()
    assert str(caught.value) == (
        f"The refresh token file {file.path} {problem}. Run `octogen-dagster login` to write it."
    )


def test_a_file_that_cannot_be_replaced_keeps_what_it_held(
    file: SecretFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write(SecretStr("old"))

    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(os, "replace", busy)  # as a file that is mounted by itself
    with pytest.raises(OctogenMCPAuthenticationError, match="cannot be replaced: Device or") as e:
        file.write(SecretStr("new"))
    assert "a file that is mounted by itself cannot be replaced, its folder can" in str(e.value)
    assert "new" not in str(e.value).split()
    assert file.read() == SecretStr("old")
    assert os.listdir(file.path.parent) == ["refresh"]


def test_a_writer_that_is_killed_leaves_a_whole_secret(file: SecretFile) -> None:
    program = """
import sys
from pydantic import SecretStr
from octogen_dagster.control_plane.secret_files import SecretFile
file = SecretFile(sys.argv[1], "refresh token")
for number in range(1_000_000):
    file.write(SecretStr(f"{number % 10}" * 50_000))
    print(number, flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(file.path)], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout
        for _ in range(7):
            writer.stdout.readline()
        writer.kill()
    secret = file.read().get_secret_value()
    assert len(secret) == 50_000
    assert len(set(secret)) == 1


def test_a_lock_that_is_held_for_too_long_is_an_error(file: SecretFile) -> None:
    held, release = Event(), Event()

    def hold() -> None:
        with SecretFile(file.path, "refresh token").locked():
            held.set()
            release.wait(30)

    holder = Thread(target=hold)
    holder.start()
    assert held.wait(30)
    file.lock_timeout = 0.02
    try:
        with pytest.raises(
            OctogenTimeoutError,
            match=r"^The refresh token file .* cannot be locked \(.*refresh\.lock\): another "
            r"process has held it for 0\.02 s; try again later\.$",
        ):
            file.locked().__enter__()
    finally:
        release.set()
        holder.join(30)
    file.lock_timeout = 30
    with file.locked():
        pass


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    nowhere = SecretFile(tmp_path / "typo" / "refresh", "refresh token")
    with pytest.raises(OctogenMCPAuthenticationError) as caught:
        nowhere.locked().__enter__()
    assert str(caught.value) == (
        f"The refresh token file {nowhere.path} has no folder: {tmp_path}/typo does not exist. "
        "Create it, or correct the path."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_in_the_way(file: SecretFile) -> None:
    file.path.with_name("refresh.lock").mkdir()
    with pytest.raises(OctogenMCPAuthenticationError, match="so a new token could be lost"):
        file.locked().__enter__()


def test_a_link_that_is_planted_at_the_lock_is_not_followed(file: SecretFile) -> None:
    theirs = file.path.with_name("theirs")
    theirs.write_text("theirs")
    theirs.chmod(0o644)
    file.path.with_name("refresh.lock").symlink_to(theirs)
    with pytest.raises(OctogenMCPAuthenticationError, match=r"cannot be locked .*symbolic links"):
        file.locked().__enter__()
    assert (theirs.read_text(), mode(theirs)) == ("theirs", 0o644)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["a FIFO", "a folder", "a socket", "a device"])
def test_a_file_that_is_not_a_regular_one_is_refused(file: SecretFile, kind: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "a FIFO":
            os.mkfifo(file.path)
        elif kind == "a folder":
            file.path.mkdir()
        elif kind == "a socket":
            listener.bind(os.path.relpath(file.path))
        else:
            file.path.symlink_to(os.devnull)
        refusals = []
        for use in (file.read, file.locked().__enter__, lambda: file.write(SecretStr("new"))):
            with pytest.raises(OctogenMCPAuthenticationError) as caught:
                use()
            refusals.append(str(caught.value))
    assert set(refusals) == {
        f"The refresh token file {file.path} is {kind} and not a regular file, which alone can be "
        "locked and replaced. Correct the path."
    }
    assert os.listdir(file.path.parent) == ["refresh"]


AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]
MY_OWNER = 12_345, 54_321


def may_be_root() -> bool:
    return not AS_ROOT or (
        shutil.which("sudo") is not None
        and subprocess.run([*AS_ROOT, "true"], check=False, capture_output=True).returncode == 0
    )


def refresh_as_root(file: SecretFile) -> None:
    """Let root replace the token of a file that belongs to another user."""
    script = (
        "import contextlib, os, sys\n"
        "from pydantic import SecretStr\n"
        "from octogen_dagster.control_plane.secret_files import SecretFile\n"
        "from octogen_dagster.errors import OctogenMCPAuthenticationError\n"
        "file = SecretFile(sys.argv[1], 'refresh token')\n"
        f"os.chown(file.path, *{MY_OWNER})\n"
        "with contextlib.suppress(OctogenMCPAuthenticationError), file.locked():\n"
        "    file.write(SecretStr('new'))\n"
    )
    subprocess.run([*AS_ROOT, sys.executable, "-c", script, str(file.path)], check=True)


@pytest.mark.skipif(not may_be_root(), reason="needs root, who can give a file to another user")
def test_the_owner_of_a_file_can_still_use_it_after_root_did(file: SecretFile) -> None:
    file.path.write_text("old")
    refresh_as_root(file)
    for path in (file.path, file.path.with_name("refresh.lock")):
        assert (path.stat().st_uid, path.stat().st_gid, mode(path)) == (*MY_OWNER, 0o600)


@pytest.mark.skipif(not may_be_root(), reason="needs root, who can give a file to another user")
def test_a_lock_that_may_be_another_user_s_file_is_not_given_away(file: SecretFile) -> None:
    theirs = file.path.with_name("theirs")
    theirs.touch()
    file.path.with_name("refresh.lock").hardlink_to(theirs)
    file.path.touch()
    refresh_as_root(file)
    assert theirs.stat().st_uid == os.geteuid()


@pytest.mark.parametrize("permissions", [0o600, 0o640, 0o604])
def test_a_file_that_others_can_read_is_warned_of(
    file: SecretFile, caplog: pytest.LogCaptureFixture, permissions: int
) -> None:
    file.path.write_text("secret")
    file.path.chmod(permissions)
    file.warn_if_exposed()
    assert caplog.messages == (
        []
        if permissions == 0o600
        else [
            f"The refresh token file {file.path} can be read by others (mode 0{permissions:o}). "
            "Only its owner can read it from now on; if others may have read it, run "
            "`octogen-dagster login` again."
        ]
    )
