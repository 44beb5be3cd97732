"""One read's folder: its record, its segments, and the segments of another read."""

from __future__ import annotations

from pathlib import Path

import pytest
from upath import UPath

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.pages.records import decode_record
from octogen_dagster.frames.pages.saved_read import SavedRead
from octogen_dagster.frames.pages.segments import SegmentName, digest
from octogen_dagster.frames.pages.storage import PageStorage, RemovedError
from tests.frames.pages.samples import read_record, segment


@pytest.fixture
def storage(tmp_path: Path) -> PageStorage:
    return PageStorage(UPath(tmp_path / ".acme.pages"))


@pytest.fixture
def read(storage: PageStorage) -> SavedRead:
    return SavedRead(storage, "one", read_record("acme", "zen"))


def overwrite(read: SavedRead, name: SegmentName, content: bytes) -> None:
    (read.storage.folder / read.name / str(name)).write_bytes(content)


def test_nothing_is_written_before_the_first_segment(read: SavedRead) -> None:
    assert read.storage.names() == set()
    name = read.write(0, 0, segment("p0"))
    assert read.storage.names() == {"one/read.json", f"one/{name}"}


def test_the_record_is_in_the_folder(read: SavedRead) -> None:
    read.begin()
    record = decode_record(read.storage.read("one/read.json"), read.storage.folder)
    assert record.catalogs == read.record.catalogs
    assert read.search.page_size == 2


def test_a_folder_that_another_run_removed_is_not_made_again(read: SavedRead) -> None:
    name = read.write(0, 0, segment("p0"))
    read.storage.remove(["one/read.json", f"one/{name}"])
    with pytest.raises(RemovedError):
        read.write(0, 1, segment("p1"))
    assert read.storage.names() == set()


def test_a_segment_is_read_as_it_was_written(read: SavedRead) -> None:
    name = read.write(1, 7, segment("p0", "p1"))
    assert (name.catalog, name.number) == (1, 7)
    assert name.digest == digest(segment("p0", "p1").encoded())
    assert read.segment(name) == segment("p0", "p1")


def test_a_segment_with_other_content_than_its_name_says_is_damaged(read: SavedRead) -> None:
    name = read.write(0, 0, segment("p0"))
    overwrite(read, name, segment("p1").encoded())
    with pytest.raises(OctogenSnapshotError, match=rf"{name} are damaged: \d+ bytes that are not"):
        read.segment(name)


def test_a_segment_in_another_format_is_named_as_such(read: SavedRead) -> None:
    read.begin()
    name = SegmentName(0, 0, digest(b"PAR1"))
    overwrite(read, name, b"PAR1")
    with pytest.raises(OctogenSnapshotError, match=f"{name} are whole but have a format"):
        read.segment(name)


def test_a_segment_that_was_removed_is_an_error_of_its_own(read: SavedRead) -> None:
    name = read.write(0, 0, segment("p0"))
    read.remove([name])
    with pytest.raises(RemovedError, match=f"{name} are gone"):
        read.segment(name)


def test_the_segments_of_a_catalog_are_in_order_and_end_at_a_gap(storage: PageStorage) -> None:
    names = {
        (catalog, number): SegmentName(catalog, number, f"{9 - number:032x}")
        for catalog, number in [(0, 0), (0, 1), (0, 3), (1, 0), (1, 1), (1, 2), (2, 1)]
    }
    read = SavedRead(storage, "one", read_record(), list(reversed(names.values())))
    assert read.segments_of(0) == [names[0, 0], names[0, 1]]
    assert read.segments_of(1) == [names[1, 0], names[1, 1], names[1, 2]]
    assert read.segments_of(2) == []
    assert read.segments_of(3) == []


def test_pages_are_those_of_the_segments_in_their_order(read: SavedRead) -> None:
    names = [read.write(0, number, segment(f"p{number}")) for number in (0, 1, 2)]
    pages = read.pages([names[2], names[0]])
    assert [page.uuids for page in pages] == [["p2"], ["p0"]]


def test_pages_before_damage_are_brought(read: SavedRead) -> None:
    names = [read.write(0, number, segment(f"p{number}")) for number in (0, 1)]
    overwrite(read, names[1], b"")
    pages = read.pages(names)
    assert next(pages).uuids == ["p0"]
    with pytest.raises(OctogenSnapshotError, match="are damaged: 0 bytes"):
        next(pages)


class TestTakingOver:
    def test_segments_get_their_place_in_the_new_read(
        self, storage: PageStorage, read: SavedRead
    ) -> None:
        names = [read.write(1, number, segment(f"p{number}")) for number in (0, 1)]
        new = SavedRead(storage, "two", read_record("zen"))
        taken = new.take_over(read, names, 0)
        assert taken == [SegmentName(0, name.number, name.digest) for name in names]
        assert [page.uuids for page in new.pages(taken)] == [["p0"], ["p1"]]

    def test_the_other_read_keeps_its_segments_and_can_be_removed(
        self, storage: PageStorage, read: SavedRead
    ) -> None:
        names = [read.write(0, 0, segment("p0"))]
        new = SavedRead(storage, "two", read_record())
        taken = new.take_over(read, names, 0)
        assert read.segment(names[0]) == segment("p0")
        read.remove(names)
        assert new.segment(taken[0]) == segment("p0")

    def test_damage_is_noticed_where_it_was_taken_to(
        self, storage: PageStorage, read: SavedRead
    ) -> None:
        names = [read.write(0, 0, segment("p0"))]
        overwrite(read, names[0], b"damaged")
        new = SavedRead(storage, "two", read_record())
        taken = new.take_over(read, names, 0)
        with pytest.raises(OctogenSnapshotError, match=r"two/.* are damaged: 7 bytes"):
            new.segment(taken[0])

    def test_segments_that_were_removed_are_an_error(
        self, storage: PageStorage, read: SavedRead
    ) -> None:
        names = [read.write(0, 0, segment("p0"))]
        read.remove(names)
        with pytest.raises(RemovedError, match="were removed while they were in use"):
            SavedRead(storage, "two", read_record()).take_over(read, names, 0)
