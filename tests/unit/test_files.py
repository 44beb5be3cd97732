from __future__ import annotations

import os
import pickle
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from polars.io.plugins import register_io_source
from pydantic import SecretStr

from octogen_dagster.control_plane.login_files import SecretFile
from octogen_dagster.storage.files import remove_abandoned, write_whole
from octogen_dagster.storage.store import MAX_WRITE_SECONDS, write_parquet

UNFINISHED = ".unfinished"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What reaches the disk and what is renamed, in order."""
    seen: list[str] = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(handle: int) -> None:
        seen.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{handle}')).name}")
        fsync(handle)

    def recorded_replace(source: str, destination: Path) -> None:
        seen.append(f"rename {Path(source).name} to {destination.name}")
        replace(source, destination)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    monkeypatch.setattr(secrets, "token_hex", lambda _: "0")
    return seen


@pytest.fixture
def umask() -> Iterator[int]:
    value = 0o027
    before = os.umask(value)
    yield value
    os.umask(before)


def test_a_durable_file_reaches_the_disk_before_and_after_it_is_renamed(
    target: Path, events: list[str]
) -> None:
    write_whole(target, b"new")
    assert events == [
        f"fsync .target.0{UNFINISHED}",
        f"rename .target.0{UNFINISHED} to target",
        f"fsync {target.parent.name}",
    ]


@pytest.mark.parametrize("link", [False, True])
def test_a_file_under_the_unfinished_name_is_not_written_to(
    target: Path, monkeypatch: pytest.MonkeyPatch, link: bool
) -> None:
    theirs = target.with_name("theirs")
    theirs.write_bytes(b"theirs")
    taken = target.with_name(f".target.taken{UNFINISHED}")
    if link:
        taken.symlink_to(theirs)
    else:
        taken.hardlink_to(theirs)
    names = iter(["taken", "free"])
    monkeypatch.setattr(secrets, "token_hex", lambda _: next(names))
    write_whole(target, b"new")
    assert target.read_bytes() == b"new"
    assert theirs.read_bytes() == b"theirs"


def test_abandoned_files_of_one_target_are_removed_when_they_are_old(tmp_path: Path) -> None:
    target = tmp_path / "na[m]e"
    old, young, other_suffix, other_target = (
        tmp_path / name
        for name in (
            f".na[m]e.1{UNFINISHED}",
            f".na[m]e.2{UNFINISHED}",
            ".na[m]e.bak",
            f".name.1{UNFINISHED}",
        )
    )
    for path in (target, old, young, other_suffix, other_target):
        path.write_bytes(b"x")
        if path != young:
            os.utime(path, (0, 0))
    remove_abandoned(target, older_than_seconds=3600)
    assert set(tmp_path.iterdir()) == {target, young, other_suffix, other_target}


def test_a_writer_that_waits_for_its_rows_is_not_taken_for_dead(tmp_path: Path) -> None:
    """A file grows only by whole row groups, which may take longer than an hour."""
    unfinished = tmp_path / ".made.parquet.0.unfinished"
    unfinished.touch()

    def rows(*_: object) -> Iterator[pl.DataFrame]:
        os.utime(unfinished, (0, 0))
        deadline = time.monotonic() + 30
        while not unfinished.stat().st_mtime:
            assert time.monotonic() < deadline, "the writer shows no sign of life"
        remove_abandoned(tmp_path / "made.parquet", MAX_WRITE_SECONDS)
        yield pl.DataFrame({"n": [1]})

    frame = register_io_source(rows, schema={"n": pl.Int64})
    assert write_parquet(frame, unfinished, dict, threading.Event()) == 1


# The files of a login.


def test_a_file_with_its_first_word_is_not_pickled() -> None:
    with pytest.raises(TypeError, match="refresh token file /x"):
        pickle.dumps(SecretFile("/x", "refresh token", SecretStr("secret")))
