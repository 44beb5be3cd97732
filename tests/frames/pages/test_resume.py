"""What a read continues from, and what it does not."""

from __future__ import annotations

import os
import shutil
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import msgspec
import polars as pl
import pytest

from octogen_dagster.api.search import ProductSearch
from octogen_dagster.errors import (
    OctogenPagingError,
    OctogenPastPartitionError,
    OctogenResponseError,
)
from octogen_dagster.frames.pages.records import ReadRecord
from octogen_dagster.frames.pages.saver import PAGES_PER_SEGMENT
from octogen_dagster.frames.pages.segments import Segment, SegmentName, digest
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.frames.pages.reads import PRODUCTS, SAVED, SEARCH, WHOLE, Execution, Reads


def rewrite_record(reads: Reads, **fields: object) -> None:
    """Change the record of the only saved read."""
    (folder,) = reads.read_folders()
    record = msgspec.json.decode((folder / "read.json").read_bytes(), type=ReadRecord)
    changed = msgspec.structs.replace(record, **fields)
    (folder / "read.json").write_bytes(changed.encoded())


def test_an_undisturbed_read_leaves_nothing_behind(reads: Reads) -> None:
    assert reads.read().height == PRODUCTS
    assert not reads.folder.exists()
    assert not any("saved" in note for note in reads.notes)


def test_a_read_that_died_is_continued_after_its_last_saved_page(
    reads: Reads, undisturbed: pl.DataFrame
) -> None:
    reads.interrupted()
    assert len(reads.segments()) == 3

    frames: list[pl.DataFrame] = []
    requested = reads.pages_requested(lambda: frames.append(reads.read()))
    assert requested == reads.rest()
    assert frames[0].drop("fetched_at").equals(undisturbed)
    assert reads.last.statistics.resumed_pages == SAVED
    assert reads.last.statistics.started_at == frames[0]["fetched_at"][0]
    assert (
        f"continues after {SAVED} pages that were saved by a read that began at" in reads.notes[0]
    )
    assert not reads.folder.exists()


def test_a_resumed_read_can_die_and_be_resumed_itself(
    reads: Reads, undisturbed: pl.DataFrame
) -> None:
    reads.interrupted(30)
    reads.interrupted()
    reads.interrupted(SAVED + 2)
    frames: list[pl.DataFrame] = []
    requested = reads.pages_requested(lambda: frames.append(reads.read()))
    assert requested == reads.rest(SAVED + 1)
    assert frames[0].drop("fetched_at").equals(undisturbed)
    assert not reads.folder.exists()


def test_a_read_that_was_whole_but_not_published_is_not_read_again(
    reads: Reads, undisturbed: pl.DataFrame
) -> None:
    search = SEARCH.model_copy(update={"catalogs": ["northpeak", "strada"]})
    reads.read(search, publish=False)
    frames: list[pl.DataFrame] = []
    compared = [1, len(WHOLE), 1, 60] if reads.generation == "current" else []
    assert reads.pages_requested(lambda: frames.append(reads.read(search))) == compared
    assert frames[0].height == PRODUCTS + 120
    assert frames[0].filter(catalog_key="northpeak").drop("fetched_at").equals(undisturbed)


def test_a_whole_read_that_was_not_published_is_not_passed_off_for_the_present(
    reads: Reads,
) -> None:
    reads.read(publish=False)
    reads.sandbox.grant("northpeak", products=PRODUCTS - 40)
    reads.sandbox.touch("northpeak")
    assert reads.read().height == PRODUCTS - 40
    assert not reads.folder.exists()


def test_of_many_catalogs_those_that_ended_are_not_requested_again(tmp_path: Path) -> None:
    shops = {f"shop-{number}": 20 for number in range(5)} | {"zoo": 30}
    with Sandbox(catalogs=shops, generation="seed") as sandbox:
        reads = Reads(sandbox, tmp_path / ".all.pages")
        reads.concurrency = 1
        search = ProductSearch(page_size=10)
        whole = reads.read(search).drop("fetched_at")
        reads.interrupted(3, search)
        frames: list[pl.DataFrame] = []
        read = partial(reads.read, search, publish=False)
        assert reads.pages_requested(lambda: frames.append(read())) == [3]
        # Now it is whole: the saved pages are all that is needed.
        assert reads.pages_requested(lambda: frames.append(reads.read(search))) == []
        for frame in frames:
            assert frame.drop("fetched_at").equals(whole)


class TestTheServiceNoLongerContinues:
    def test_a_cursor_that_it_forgot(self, reads: Reads, undisturbed: pl.DataFrame) -> None:
        reads.interrupted()
        began = datetime.now(timezone.utc)
        reads.sandbox.inject(Fault("restart_cursor", page=SAVED + 1, times=1))
        frames: list[pl.DataFrame] = []
        requested = reads.pages_requested(lambda: frames.append(reads.read()))
        assert requested[-len(WHOLE) :] == WHOLE
        assert frames[0].drop("fetched_at").equals(undisturbed)
        assert frames[0]["fetched_at"][0] >= began
        assert reads.notes[0] == (
            "Catalog 'northpeak': the service no longer knows the cursor of the saved pages and "
            "answered page 1 again. They are not used."
        )
        assert not reads.folder.exists()

    @pytest.mark.parametrize("status", [400, 404, 410, 422])
    def test_a_cursor_that_it_refuses(
        self, reads: Reads, undisturbed: pl.DataFrame, status: int
    ) -> None:
        reads.interrupted()
        reads.sandbox.inject(Fault("status", status, page=SAVED + 1, times=1))
        assert reads.read().drop("fetched_at").equals(undisturbed)
        assert (
            f"refuses the cursor of the saved pages ({status}). They are not used."
            in reads.notes[0]
        )

    @pytest.mark.parametrize("changed", [1, SAVED])
    def test_a_page_that_changed_unnoticed(self, tmp_path: Path, changed: int) -> None:
        with Sandbox(catalogs={"northpeak": PRODUCTS}, generation="current") as sandbox:
            reads = Reads(sandbox, tmp_path / ".northpeak.pages", "current")
            whole = reads.read().drop("fetched_at")
            reads.interrupted()
            # The same products on the same pages, of which one has another price.
            sandbox.inject(Fault("price", 0.5, page=changed))
            frame = reads.read()
            assert f"page {changed} is no longer the one that was saved" in reads.notes[0]
            assert frame.filter(current_price=0.5).height == 1
            assert frame["uuid"].equals(whole["uuid"])

    @pytest.mark.parametrize("search", [SEARCH, ProductSearch(page_size=2)])
    def test_a_catalog_that_was_indexed_again(self, tmp_path: Path, search: ProductSearch) -> None:
        with Sandbox(catalogs={"northpeak": PRODUCTS}, generation="seed") as sandbox:
            reads = Reads(sandbox, tmp_path / ".northpeak.pages")
            reads.interrupted(search=search)
            sandbox.touch("northpeak")
            assert reads.pages_requested(lambda: reads.read(search)) == WHOLE
            assert "it was indexed again since the saved pages were read" in reads.notes[0]
            assert not reads.folder.exists()

    def test_another_generation(self, tmp_path: Path) -> None:
        with Sandbox(catalogs={"northpeak": PRODUCTS}, generation="seed") as sandbox:
            reads = Reads(sandbox, tmp_path / ".northpeak.pages")
            reads.interrupted()
            path = reads.segments()[0]
            segment = Segment.decoded(path.read_bytes())
            content = msgspec.structs.replace(segment, generation="current").encoded()
            path.unlink()
            path.with_name(str(SegmentName(0, 0, digest(content)))).write_bytes(content)
            assert reads.pages_requested(reads.read)[-len(WHOLE) :] == WHOLE
            assert "speaks another generation of its contract" in reads.notes[0]


class TestDamage:
    @pytest.mark.parametrize("damage", ["cut", "changed", "emptied"])
    @pytest.mark.parametrize("which", [0, 1])
    def test_a_damaged_segment_ends_the_pages_that_are_used(
        self, reads: Reads, undisturbed: pl.DataFrame, damage: str, which: int
    ) -> None:
        reads.interrupted()
        path = reads.segments()[which]
        content = path.read_bytes()
        half = len(content) // 2
        contents = {
            "cut": content[:half],
            "changed": content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :],
            "emptied": b"",
        }
        path.write_bytes(contents[damage])
        frames: list[pl.DataFrame] = []
        requested = reads.pages_requested(lambda: frames.append(reads.read()))
        assert requested == (reads.rest(which * PAGES_PER_SEGMENT) if which else WHOLE)
        assert frames[0].drop("fetched_at").equals(undisturbed)
        assert f"{path} are damaged" in reads.notes[0]
        assert not reads.folder.exists()

    def test_a_missing_segment_ends_the_pages_that_are_used(
        self, reads: Reads, undisturbed: pl.DataFrame
    ) -> None:
        reads.interrupted()
        reads.segments()[2].unlink()
        frames: list[pl.DataFrame] = []
        requested = reads.pages_requested(lambda: frames.append(reads.read()))
        assert requested == reads.rest(2 * PAGES_PER_SEGMENT)
        assert frames[0].drop("fetched_at").equals(undisturbed)

    @pytest.mark.parametrize("content", [b"PAR1", b"\x28\xb5\x2f\xfd"], ids=["parquet", "zstd"])
    def test_pages_of_another_format_are_not_used(
        self, reads: Reads, undisturbed: pl.DataFrame, content: bytes
    ) -> None:
        reads.interrupted(PAGES_PER_SEGMENT + 1)
        (segment,) = reads.segments()
        segment.unlink()
        path = segment.with_name(str(SegmentName(0, 0, digest(content))))
        path.write_bytes(content)
        assert reads.read().drop("fetched_at").equals(undisturbed)
        assert f"The saved pages {path} are whole but have a format that" in reads.notes[0]
        assert not reads.folder.exists()

    def test_the_longest_pages_that_can_be_used_are_used(
        self, reads: Reads, undisturbed: pl.DataFrame
    ) -> None:
        reads.interrupted()
        for path in reads.segments()[1:]:
            path.write_bytes(b"")
        reads.interrupted(30)
        frames: list[pl.DataFrame] = []
        assert reads.pages_requested(lambda: frames.append(reads.read())) == reads.rest(29)
        assert frames[0].drop("fetched_at").equals(undisturbed)
        assert not reads.folder.exists()

    def test_pages_that_a_read_failed_for_are_not_used_again(self, reads: Reads) -> None:
        reads.interrupted(20)
        reads.sandbox.inject(Fault("loop_cursor", page=30, times=1))
        with pytest.raises(OctogenPagingError):
            reads.read()
        assert not reads.folder.exists()
        assert reads.pages_requested(reads.read)[-len(WHOLE) :] == WHOLE


class TestOtherReads:
    @pytest.mark.parametrize(
        "fields", [{"base_url": "https://other.example/v1"}, {"search": {"q": "another"}}]
    )
    def test_pages_of_another_search_or_service_are_not_used(
        self, reads: Reads, fields: dict[str, object]
    ) -> None:
        reads.interrupted()
        rewrite_record(reads, **fields)
        assert reads.pages_requested(reads.read)[0] == 1
        assert reads.notes[0] == (
            f"1 saved reads in {reads.folder} are not used: they are of another search or service."
        )

    def test_a_search_of_another_version_is_not_used(self, reads: Reads) -> None:
        reads.interrupted()
        rewrite_record(reads, search={"colour": "red"})
        assert reads.pages_requested(reads.read)[0] == 1
        assert "of a search that this version of octogen-dagster does not know" in reads.notes[0]

    def test_a_read_that_began_too_long_ago_is_not_resumed(self, reads: Reads) -> None:
        reads.interrupted()
        requested = reads.pages_requested(lambda: reads.read(resume_within=timedelta(0)))
        assert requested[-len(WHOLE) :] == WHOLE
        assert "too long ago. They are not used." in reads.notes[0]
        assert not reads.folder.exists()

    def test_a_read_that_begins_in_the_future_is_not_resumed(self, reads: Reads) -> None:
        reads.interrupted()
        rewrite_record(reads, started_at=datetime.now(timezone.utc) + timedelta(hours=1))
        assert reads.pages_requested(reads.read)[-len(WHOLE) :] == WHOLE
        assert "a read that begins later" in reads.notes[0]
        assert "a clock jumped. They are not used." in reads.notes[0]

    def test_a_read_whose_place_another_took_goes_on_without_saving(
        self, reads: Reads, undisturbed: pl.DataFrame
    ) -> None:
        scan = reads.scan()
        execution = Execution(scan, reads.store(), reads.notes.append)
        batches = execution.batches
        frames = [next(batches), next(batches)]
        saver = execution.saver
        assert saver
        saver.flush()
        Reads(reads.sandbox, reads.folder).read()
        assert not reads.folder.exists()
        whole = pl.concat([*frames, *batches])
        assert whole.drop("fetched_at").equals(undisturbed)
        assert not reads.segments()

    def test_a_catalog_whose_saved_pages_vanish_at_the_take_over_is_read_anew(
        self, reads: Reads, undisturbed: pl.DataFrame
    ) -> None:
        reads.interrupted()
        last = reads.segments()[-1]

        def remove_when_found(line: str) -> None:
            reads.notes.append(line)
            if "continues after" in line:
                last.unlink()

        scan = reads.scan()
        execution = Execution(scan, reads.store(), remove_when_found)
        frame = pl.concat(execution.batches)
        execution.stored.remove_pages()
        assert frame.drop("fetched_at").equals(undisturbed)
        assert any(note.endswith("The catalog is read anew.") for note in reads.notes)
        assert not reads.folder.exists()


class TestPastTimes:
    def test_a_past_time_is_refused_without_a_request(self, reads: Reads) -> None:
        now = datetime.now(timezone.utc)
        window = (now - timedelta(days=2), now - timedelta(days=1))
        before = len(reads.sandbox.requests)
        with pytest.raises(OctogenPastPartitionError) as caught:
            reads.read(window=window)
        assert str(caught.value).startswith(
            f"The partition from {window[0]:%Y-%m-%d %H:%M} to {window[1]:%Y-%m-%d %H:%M} UTC is "
            "over, and the service knows only the present"
        )
        assert len(reads.sandbox.requests) == before

    def test_a_read_that_died_in_its_time_is_not_continued_after_it(self, reads: Reads) -> None:
        begin = datetime.now(timezone.utc)
        reads.interrupted()
        saved = reads.segments()
        with pytest.raises(OctogenPastPartitionError):
            reads.read(window=(begin, datetime.now(timezone.utc)))
        assert reads.segments() == saved

    def test_a_time_to_come_is_refused(self, reads: Reads) -> None:
        now = datetime.now(timezone.utc)
        with pytest.raises(
            OctogenPastPartitionError, match=r"has not begun.*when its time has come\.$"
        ):
            reads.read(window=(now + timedelta(days=1), now + timedelta(days=2)))


class TestErrors:
    def test_a_response_that_cannot_be_read_loses_no_page(
        self, reads: Reads, undisturbed: pl.DataFrame
    ) -> None:
        reads.sandbox.inject(Fault("html", page=SAVED + 1, times=1))
        with pytest.raises(OctogenResponseError):
            reads.read()
        frames: list[pl.DataFrame] = []
        assert reads.pages_requested(lambda: frames.append(reads.read())) == reads.rest()
        assert frames[0].drop("fetched_at").equals(undisturbed)

    def test_a_catalog_that_was_indexed_again_costs_only_its_own_pages(
        self, tmp_path: Path
    ) -> None:
        with Sandbox(catalogs={"northpeak": PRODUCTS, "strada": 120}, generation="seed") as sandbox:
            reads = Reads(sandbox, tmp_path / ".all.pages")
            search = SEARCH.model_copy(update={"catalogs": ["northpeak", "strada"]})
            scan = reads.scan(search)
            execution = Execution(scan, reads.store(), reads.notes.append)
            batches = execution.batches
            next(batches)
            sandbox.touch("strada")
            with pytest.raises(OctogenPagingError, match="'strada' was indexed again while"):
                list(batches)
            assert reads.pages_requested(lambda: reads.read(search)) == [*range(1, 61)]

    def test_a_cursor_that_is_refused_on_the_way_is_a_paging_error(self, reads: Reads) -> None:
        reads.sandbox.inject(Fault("status", 422, page=20, times=1))
        with pytest.raises(OctogenPagingError, match=r"refuses the cursor of page 20 \(422\)"):
            reads.read()
        assert reads.pages_requested(reads.read) == reads.rest(19)

    def test_a_catalog_that_fails_costs_only_its_own_pages(self, tmp_path: Path) -> None:
        with Sandbox(catalogs={"northpeak": PRODUCTS, "strada": 120}, generation="seed") as sandbox:
            reads = Reads(sandbox, tmp_path / ".all.pages")
            reads.concurrency = 1
            search = SEARCH.model_copy(update={"catalogs": ["northpeak", "strada"]})
            reads.interrupted(59, search)  # only strada has so many pages
            sandbox.inject(Fault("loop_cursor", page=59, times=1))
            with pytest.raises(OctogenPagingError, match="Catalog 'strada'"):
                reads.read(search)
            assert reads.pages_requested(lambda: reads.read(search)) == [*range(1, 61)]
        assert not reads.folder.exists()


def test_saved_pages_that_cannot_be_taken_over_are_read_where_they_are(
    reads: Reads, undisturbed: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    reads.interrupted()
    monkeypatch.setattr(os, "link", refuses)
    monkeypatch.setattr(shutil, "copyfile", refuses)
    frames: list[pl.DataFrame] = []
    requested = reads.pages_requested(lambda: frames.append(reads.read()))
    assert requested == reads.rest()
    assert frames[0].drop("fetched_at").equals(undisturbed)
    assert not reads.folder.exists()


def test_a_take_over_that_fails_midway_leaves_no_copies(
    reads: Reads, undisturbed: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads.interrupted()
    link, linked = os.link, []

    def fails_late(source: str, target: str) -> None:
        linked.append(target)
        if len(linked) == 3:
            raise FileNotFoundError(2, "No such file or directory")
        link(source, target)

    monkeypatch.setattr(os, "link", fails_late)
    frame = reads.read(publish=False)
    assert frame.drop("fetched_at").equals(undisturbed)
    assert any(note.endswith("The catalog is read anew.") for note in reads.notes)
    assert reads.read().equals(frame)
