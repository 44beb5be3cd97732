from __future__ import annotations

import os
from pathlib import Path

import pytest

from octogen_dagster.doctor.runner import run_checks
from octogen_dagster.doctor.snapshot_place import check_snapshot_place
from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager


def diagnosed(base_dir: str | Path) -> str:
    io_manager = ParquetSnapshotIOManager(base_dir=str(base_dir))
    (finding,) = run_checks({"Snapshots": lambda: check_snapshot_place(io_manager)}, 60)
    return str(finding)


def test_a_folder_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "there", tmp_path / "new" / "deep"):
        assert diagnosed(folder) == (
            f"ok       Snapshots: a file was written, renamed, read back and deleted at {folder}."
        )
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = diagnosed(tmp_path / "file")
    assert found.startswith("failed   Snapshots: Snapshots cannot be written to")
    assert "set base_dir to another one" in found


def test_a_file_that_cannot_be_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PermissionError("not permitted")

    monkeypatch.setattr(os, "replace", fail)
    assert "could not be published" in diagnosed(tmp_path)
    assert not list(tmp_path.iterdir())
