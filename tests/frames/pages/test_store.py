"""Which reads a store keeps, archives and removes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from upath import UPath

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.pages.store import PageStore
from octogen_dagster.sandbox.server import Sandbox
from tests.frames.pages.reads import PRODUCTS, SEARCH, WHOLE, Reads
from tests.frames.pages.samples import read_record, segment

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


class TestTheArchive:
    def test_the_next_archived_read_replaces_the_one_before(self, reads: Reads) -> None:
        reads.read(keep=True)
        first = reads.segments()
        requested = reads.pages_requested(lambda: reads.read(keep=True))
        assert requested[-len(WHOLE) :] == WHOLE
        second = reads.segments()
        assert len(first) == len(second) == 3
        assert not set(first) & set(second)
        reads.read()  # without keeping: what is archived stays
        assert reads.segments() == second

    def test_its_folder_holds_the_read_and_nothing_else(self, reads: Reads) -> None:
        reads.interrupted()
        reads.read(keep=True)
        (folder,) = reads.read_folders()
        assert len(list(folder.iterdir())) == 1 + len(reads.segments())
        assert {path.name for path in reads.folder.iterdir()} == {folder.name, "archive.json"}

    def test_what_killed_writers_of_its_record_left_is_removed(self, reads: Reads) -> None:
        reads.read(keep=True)
        (reads.folder / ".archive.json.0123.unfinished").write_bytes(b"half")
        (reads.folder / "20261126T060000Z-0123456789ab").mkdir()
        reads.read(keep=True)
        (folder,) = reads.read_folders()
        assert {path.name for path in reads.folder.iterdir()} == {folder.name, "archive.json"}

    def test_a_read_that_was_archived_before_is_never_resumed(self, reads: Reads) -> None:
        reads.read(keep=True)
        reads.read(keep=True, publish=False)  # dies after it was archived
        assert len(reads.segments()) == 6
        assert reads.pages_requested(lambda: reads.read(keep=True)) == WHOLE
        assert len(reads.segments()) == 3

    def test_it_is_not_written_if_another_run_removed_its_pages(self, reads: Reads) -> None:
        scan = reads.scan()
        store = reads.store(keep=True)
        with scan.use_page_store(store, reads.notes.append):
            scan.frame.collect()
            assert scan._plan
            for read in scan._plan.reads:
                assert read.saver
                read.saver.flush()
            for path in reads.segments():
                path.unlink()
            with pytest.raises(OctogenSnapshotError, match="were removed while they were in use"):
                scan.archive_pages()
        assert store.archived_read() is None

    @pytest.mark.parametrize(
        ("content", "text"),
        [
            (b"{", "is damaged"),
            (b'{"read": "x", "version": 9}', "has version 9, and this version of octogen-dagster"),
            (b'{"read": "x", "version": 1, "digest": "0"}', "is not what was written"),
        ],
    )
    def test_one_that_cannot_be_read_is_an_error_and_loses_nothing(
        self, reads: Reads, content: bytes, text: str
    ) -> None:
        captured = reads.read(keep=True)
        window = (captured["fetched_at"][0], datetime.now(timezone.utc))
        archive = reads.folder / "archive.json"
        whole = archive.read_bytes()
        archive.write_bytes(content)
        with pytest.raises(OctogenSnapshotError, match=text):
            reads.read(window=window)
        before = reads.segments()
        assert reads.pages_requested(reads.read)[-len(WHOLE) :] == WHOLE
        assert reads.segments() == before
        archive.write_bytes(whole)
        assert reads.read(window=window).equals(captured)

    def test_a_missing_record_of_the_archived_read_is_an_error(self, reads: Reads) -> None:
        captured = reads.read(keep=True)
        window = (captured["fetched_at"][0], datetime.now(timezone.utc))
        (folder,) = reads.read_folders()
        (folder / "read.json").unlink()
        with pytest.raises(OctogenSnapshotError, match=r"read\.json are gone"):
            reads.read(window=window)
        assert reads.read().height == PRODUCTS

    def test_runs_that_archive_at_once_leave_a_whole_record(self, tmp_path: Path) -> None:
        store = PageStore(UPath(tmp_path / ".x.pages"), keep=True)
        read = store.new_read(read_record())
        name = read.write(0, 0, segment("p0"))
        store.archive(read, {name})
        with ThreadPoolExecutor(4) as pool:
            for archived in [pool.submit(store.archive, read, {name}) for _ in range(200)]:
                assert store.archived_read()
                archived.result()

    def test_its_pages_are_on_the_disk_before_it_names_them(
        self, reads: Reads, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fsync, synced = os.fsync, []

        def noted(handle: int) -> None:
            synced.append((os.fstat(handle).st_ino, archive.exists()))
            fsync(handle)

        archive = reads.folder / "archive.json"
        monkeypatch.setattr(os, "fsync", noted)
        reads.read(keep=True)
        (folder,) = reads.read_folders()
        before = {(path.stat().st_ino, False) for path in [folder, *folder.iterdir()]}
        assert set(synced[:-2]) == before
        assert synced[-2:] == [(archive.stat().st_ino, False), (reads.folder.stat().st_ino, True)]
