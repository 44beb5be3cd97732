from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from octogen_dagster.snapshots.unfinished_files import unfinished_upload


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def abandoned(parent: Path) -> Path:
    """Make the folder of an upload whose process was killed, which ended its lock."""
    folder = Path(tempfile.mkdtemp(prefix="octogen-upload-", dir=parent))
    (folder / "snapshot.parquet").write_bytes(b"half")
    return folder


def test_only_this_user_can_reach_a_file_that_will_be_uploaded(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    umask = os.umask(0)
    try:
        with unfinished_upload(tmp_path) as path, unfinished_upload(tmp_path) as other:
            assert mode(path) == 0o600
            assert mode(path.parent) == 0o700
            assert path.parent.stat().st_uid == os.geteuid()
            assert path.parent != other.parent
    finally:
        os.umask(umask)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_live_one_is_not(
    tmp_path: Path,
) -> None:
    left = abandoned(tmp_path)
    with unfinished_upload(tmp_path) as first:
        assert not left.exists()
        with unfinished_upload(tmp_path):
            assert first.exists()


def test_the_folder_of_another_user_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = abandoned(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1)
    with unfinished_upload(tmp_path):
        pass
    assert (left / "snapshot.parquet").exists()


def test_a_link_among_the_folders_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    (tmp_path / "octogen-upload-link").symlink_to(precious)
    with unfinished_upload(tmp_path):
        pass
    assert (precious / "file").exists()
