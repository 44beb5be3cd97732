"""The files of saved pages, on a disk and in a bucket."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest
from upath import UPath

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.pages.storage import PageStorage, RemovedError


@pytest.fixture
def disk(tmp_path: Path) -> PageStorage:
    return PageStorage(UPath(tmp_path / ".acme.pages"))


@pytest.fixture
def bucket() -> PageStorage:
    return PageStorage(UPath(f"memory://bucket-{uuid.uuid4().hex}/.acme.pages"))


@pytest.fixture(params=["disk", "bucket"])
def storage(request: pytest.FixtureRequest) -> PageStorage:
    """A storage on a disk, then one in a bucket."""
    found: PageStorage = request.getfixturevalue(request.param)
    return found


def write(storage: PageStorage, name: str, content: bytes = b"content") -> None:
    storage.make_folder(name.partition("/")[0])
    storage.write(name, content)


class TestOnADiskAndInABucket:
    def test_a_folder_that_is_not_there_has_no_files(self, storage: PageStorage) -> None:
        assert storage.names() == set()

    def test_names_are_relative_and_of_all_depths(self, storage: PageStorage) -> None:
        write(storage, "one/read.json")
        write(storage, "two/read.json")
        storage.write("notes.json", b"{}")
        assert storage.names() == {"notes.json", "one/read.json", "two/read.json"}

    def test_a_sibling_whose_name_begins_alike_has_its_own_files(
        self, storage: PageStorage
    ) -> None:
        sibling = PageStorage(UPath(f"{storage.folder}-2"))
        write(storage, "one/read.json")
        write(sibling, "two/read.json")
        assert storage.names() == {"one/read.json"}
        assert sibling.names() == {"two/read.json"}

    def test_a_file_is_read_as_it_was_written_last(self, storage: PageStorage) -> None:
        write(storage, "one/a", b"first")
        storage.write("one/a", b"\0second")
        assert storage.read("one/a") == b"\0second"
        assert storage.names() == {"one/a"}

    @pytest.mark.parametrize("name", ["one/b", "two/a", "notes.json"])
    def test_a_file_that_is_not_there_is_a_removed_one(
        self, storage: PageStorage, name: str
    ) -> None:
        write(storage, "one/a")
        with pytest.raises(RemovedError, match=f"{name} are gone: perhaps another run"):
            storage.read(name)

    def test_a_copy_stays_when_the_original_is_removed(self, storage: PageStorage) -> None:
        write(storage, "one/a", b"content")
        storage.make_folder("two")
        storage.copy([("one/a", "two/b")])
        storage.remove(["one/a"])
        assert storage.names() == {"two/b"}
        assert storage.read("two/b") == b"content"

    def test_removing_files_leaves_the_others(self, storage: PageStorage) -> None:
        for name in ("one/a", "one/b", "two/a"):
            write(storage, name)
        storage.remove(["one/a", "two/a", "two/not-there"])
        assert storage.names() == {"one/b"}

    def test_work_runs_in_another_thread(self, storage: PageStorage) -> None:
        storage.submit(lambda: write(storage, "one/a")).result()
        assert storage.names() == {"one/a"}

        def fail() -> None:
            storage.read("one/b")

        with pytest.raises(RemovedError):
            storage.submit(fail).result()


class TestOnADisk:
    def test_the_folders_that_a_removal_empties_are_removed(self, disk: PageStorage) -> None:
        write(disk, "one/a")
        write(disk, "two/b")
        disk.remove(["one/a"])
        assert sorted(os.listdir(disk.folder.path)) == ["two"]
        disk.remove(["two/b"])
        assert not disk.folder.exists()

    def test_a_file_whose_folder_was_removed_is_a_removed_one(self, disk: PageStorage) -> None:
        with pytest.raises(RemovedError, match=r"were removed while they were in use.*again\.$"):
            disk.write("one/a", b"content")

    def test_a_copy_of_a_file_that_was_removed_is_an_error(self, disk: PageStorage) -> None:
        disk.make_folder("two")
        with pytest.raises(RemovedError, match="were removed while they were in use"):
            disk.copy([("one/a", "two/a")])

    def test_a_copy_takes_no_space(self, disk: PageStorage) -> None:
        write(disk, "one/a")
        disk.copy([("one/a", "one/b")])
        assert (disk.folder / "one" / "a").stat().st_nlink == 2

    def test_without_hard_links_the_content_is_copied(
        self, disk: PageStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_source: str, _target: str) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
        write(disk, "one/a", b"content")
        disk.copy([("one/a", "one/b")])
        assert disk.read("one/b") == b"content"
        assert (disk.folder / "one" / "a").stat().st_nlink == 1

    def test_a_place_that_cannot_be_written_is_named(self, disk: PageStorage) -> None:
        Path(disk.folder.path).write_text("a file")
        with pytest.raises(
            OctogenSnapshotError, match=rf"cannot be saved to {disk.folder}: .*\. Make it writable"
        ):
            disk.make_folder("one")

    def test_a_file_that_cannot_be_read_is_named(self, disk: PageStorage) -> None:
        disk.make_folder("one")
        with pytest.raises(OctogenSnapshotError, match=r"one cannot be read: .*Correct the cause"):
            disk.read("one")

    def test_files_that_cannot_be_removed_are_counted_and_the_others_removed(
        self, disk: PageStorage
    ) -> None:
        write(disk, "one/a")
        disk.make_folder("one/folder")
        with pytest.raises(
            OctogenSnapshotError, match=r"^1 files of saved pages in .* cannot be removed: "
        ):
            disk.remove(["one/folder", "one/a"])
        assert disk.names() == set()

    def test_empty_folders_that_killed_writers_left_are_removed(self, disk: PageStorage) -> None:
        write(disk, "one/a")
        disk.make_folder("two")
        disk.remove([])
        assert os.listdir(disk.folder.path) == ["one"]

    def test_a_file_is_created_although_others_remove_its_folder_and_its_copy(
        self, disk: PageStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replace, removals = os.replace, iter([self._remove_all, self._remove_all])

        def disturbed(source: str, target: str) -> None:
            next(removals, lambda _disk: None)(disk)
            replace(source, target)

        monkeypatch.setattr(os, "replace", disturbed)
        disk.create("one/a", b"content")
        assert disk.names() == {"one/a"}
        assert disk.read("one/a") == b"content"

    def test_a_folder_that_is_removed_for_ever_is_an_error(
        self, disk: PageStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "replace", lambda *_names: os.stat(f"{disk.folder}/nothing"))
        with pytest.raises(RemovedError, match="were removed while they were in use"):
            disk.create("one/a", b"content")

    @staticmethod
    def _remove_all(disk: PageStorage) -> None:
        disk.remove(disk.names())
        assert not disk.folder.exists()


def test_a_bucket_needs_no_folder(bucket: PageStorage) -> None:
    bucket.write("one/a", b"content")
    bucket.remove([])
    assert bucket.names() == {"one/a"}
