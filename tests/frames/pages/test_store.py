"""Which reads a store keeps and removes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from upath import UPath

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.sandbox.server import Sandbox
from tests.frames.pages.reads import PRODUCTS, SEARCH, Reads

OTHER = SEARCH.model_copy(update={"price_min": 1.0})


@pytest.fixture
def reads(tmp_path: Path) -> Iterator[Reads]:
    """Reads of one generation: what a store keeps does not depend on it."""
    with Sandbox(catalogs={"northpeak": PRODUCTS}, generation="seed") as sandbox:
        yield Reads(sandbox, tmp_path / ".northpeak.pages")


def test_files_that_are_no_saved_pages_stay(reads: Reads) -> None:
    reads.folder.mkdir(parents=True)
    (reads.folder / "notes.txt").write_text("mine")
    (reads.folder / "mine").mkdir()
    (reads.folder / "mine" / "x.pages").write_text("mine")
    reads.read()
    names = {str(path.relative_to(reads.folder)) for path in reads.folder.rglob("*")}
    assert names == {"notes.txt", "mine", "mine/x.pages"}


def test_a_read_of_another_search_stays_while_it_may_be_under_way(reads: Reads) -> None:
    reads.interrupted()
    saved = reads.segments()
    reads.read(OTHER, resume_within=timedelta(0))
    assert reads.segments() == saved
    reads.ahead = timedelta(hours=25)
    reads.read(OTHER)
    assert not reads.folder.exists()


def test_a_read_without_its_record_is_removed(reads: Reads) -> None:
    reads.interrupted()
    (folder,) = reads.read_folders()
    (folder / "read.json").rename(folder / ".read.json.0123.unfinished")
    reads.read(OTHER)
    assert not reads.folder.exists()


def test_a_read_whose_record_is_damaged_is_removed_when_it_is_old(reads: Reads) -> None:
    reads.interrupted()
    (folder,) = reads.read_folders()
    (folder / "read.json").write_bytes(b"{")
    reads.read(OTHER)
    assert any("The read is not continued." in note for note in reads.notes)
    assert reads.segments()
    reads.ahead = timedelta(hours=25)
    reads.read(OTHER)
    assert not reads.folder.exists()


def test_what_a_killed_writer_left_goes_with_its_read(reads: Reads) -> None:
    reads.interrupted()
    (folder,) = reads.read_folders()
    (folder / ".000000-000005.pages.0123.unfinished").write_bytes(b"half")
    reads.read()
    assert not reads.folder.exists()


def test_saved_pages_that_cannot_be_removed_are_told_of(
    reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: UPath, missing_ok: bool = False) -> None:
        raise PermissionError(1, "Operation not permitted")

    reads.interrupted()
    monkeypatch.setattr(type(UPath(reads.folder)), "unlink", refuse)
    with pytest.raises(
        OctogenSnapshotError, match=r"files of saved pages in .* cannot be removed: Operation not"
    ):
        reads.read()
