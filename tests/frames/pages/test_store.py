from __future__ import annotations

import functools
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
import polars as pl
import pytest
from upath import UPath

from octogen_dagster.api.connection import Connection
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.models import MerchantCatalogSummary
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.errors import (
    OctogenPagingError,
    OctogenPastPartitionError,
    OctogenServerError,
    OctogenSnapshotError,
)
from octogen_dagster.frames.pages import segments
from octogen_dagster.frames.pages.saver import PAGES_IN_A_SEGMENT, PageSaver
from octogen_dagster.frames.pages.segments import Segment, segment_name, walk_root
from octogen_dagster.frames.pages.store import PageStore, TimeWindow
from octogen_dagster.frames.scan import ProductScan
from octogen_dagster.frames.search import ProductSearch
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox

# 58 pages, of which the read that dies has brought 56: four whole segments and a rest.
SEARCH = ProductSearch(catalogs=["northpeak"], page_size=2)
PRODUCTS = 116
WHOLE = [*range(1, 59)]
SAVED = 56

Generation = Literal["seed", "current"]

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class Reads:
    """Reads of one snapshot, each as a run would make it."""

    def __init__(self, sandbox: Sandbox, folder: Path, generation: Generation = "seed") -> None:
        self.sandbox = sandbox
        self.generation = generation
        self.concurrency = 8
        self.folder = folder
        self.notes: list[str] = []
        self.last: ProductScan | None = None

    def read(
        self,
        search: ProductSearch = SEARCH,
        *,
        window: TimeWindow | None = None,
        publish: bool = True,
        granted: Callable[[], list[MerchantCatalogSummary]] | None = None,
        **store: object,
    ) -> pl.DataFrame:
        connection = Connection(
            api_key=ApiKey(self.sandbox.api_key),
            base_url=self.sandbox.base_url,
            concurrency=self.concurrency,
            retry=RetryPolicy(attempts=1),
        )
        scan = self.last = ProductScan(search, connection, granted=granted, window=window)
        self.notes = []
        scan.save_pages(PageStore(UPath(self.folder), **store), self.notes.append)  # type: ignore[arg-type]
        frame = scan.frame.collect()
        if publish:
            scan.land()
            scan.published()
        return frame

    def interrupted(self, page: int = SAVED + 1, search: ProductSearch = SEARCH) -> None:
        """A read that dies at a page."""
        self.sandbox.inject(Fault("status", 500, page=page, times=1))
        with pytest.raises(OctogenServerError):
            self.read(search)

    def pages_asked(self, work: Callable[[], object]) -> list[int]:
        before = len(self.sandbox.requests)
        work()
        return [
            request.page
            for request in self.sandbox.requests[before:]
            if request.path == "/products/search" and request.status == 200
        ]

    def rest(self, saved: int = SAVED) -> list[int]:
        """The pages that a continued read asks for.

        Where the service does not say when a catalog was indexed, two pages have to.
        """
        again = [1, saved] if self.generation == "current" else []
        return [saved + 1, *again, *range(saved + 2, len(WHOLE) + 1)]

    def segments(self) -> list[Path]:
        return sorted(self.folder.glob("*.pages"))


@pytest.fixture(params=["seed", "current"])
def reads(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reads]:
    shops = {"northpeak": PRODUCTS, "strada": 120}
    with Sandbox(catalogs=shops, generation=request.param) as sandbox:
        yield Reads(sandbox, tmp_path / ".northpeak.pages", request.param)


@functools.cache
def undisturbed_read(generation: Generation) -> pl.DataFrame:
    with (
        Sandbox(catalogs={"northpeak": PRODUCTS}, generation=generation) as sandbox,
        tempfile.TemporaryDirectory() as folder,
    ):
        return Reads(sandbox, Path(folder)).read().drop("fetched_at")


@pytest.fixture
def undisturbed(reads: Reads) -> pl.DataFrame:
    return undisturbed_read(reads.generation)


def chain(reads: Reads) -> list[Path]:
    """The segments in the order of the walk."""
    following = {path.name.partition("-")[0]: path for path in reads.segments()}
    digests = {path.stem.partition("-")[2] for path in following.values()}
    (root,) = following.keys() - digests
    found: list[Path] = []
    path: Path | None = following[root]
    while path:
        found.append(path)
        path = following.get(path.stem.partition("-")[2])
    return found


def test_an_undisturbed_read_leaves_nothing_behind(reads: Reads) -> None:
    assert reads.read().height == PRODUCTS
    assert not reads.folder.exists()
    assert reads.notes == []


def test_a_read_that_died_is_continued_after_its_last_saved_page(
    reads: Reads, undisturbed: pl.DataFrame
) -> None:
    reads.interrupted()
    assert len(reads.segments()) == 5

    frames: list[pl.DataFrame] = []
    asked = reads.pages_asked(lambda: frames.append(reads.read()))
    assert asked == reads.rest()
    assert frames[0].drop("fetched_at").equals(undisturbed)
    assert reads.last
    assert reads.last.statistics.saved_pages == SAVED
    assert reads.last.statistics.started_at == frames[0]["fetched_at"][0]
    assert (
        f"continues after {SAVED} pages that were saved by a read that began at" in reads.notes[0]
    )
    assert not reads.folder.exists()


def test_a_continued_read_can_die_and_be_continued_itself(
    reads: Reads, undisturbed: pl.DataFrame
) -> None:
    reads.interrupted(30)
    reads.interrupted()
    reads.interrupted(SAVED + 2)
    frames: list[pl.DataFrame] = []
    assert reads.pages_asked(lambda: frames.append(reads.read())) == reads.rest(SAVED + 1)
    assert frames[0].drop("fetched_at").equals(undisturbed)


def test_a_read_that_was_whole_but_not_published_is_not_read_again(
    reads: Reads, undisturbed: pl.DataFrame
) -> None:
    search = SEARCH.model_copy(update={"catalogs": ["northpeak", "strada"]})
    reads.read(search, publish=False, keep=True)
    for read in reads.last._plan.reads if reads.last else ():
        assert read.saver
        read.saver.flush()
    frames: list[pl.DataFrame] = []
    compared = [1, len(WHOLE), 1, 60] if reads.generation == "current" else []
    assert reads.pages_asked(lambda: frames.append(reads.read(search))) == compared
    assert frames[0].height == PRODUCTS + 120
    assert frames[0].filter(catalog_key="northpeak").drop("fetched_at").equals(undisturbed)


def test_a_whole_read_that_was_not_published_is_not_passed_off_for_the_present(
    reads: Reads,
) -> None:
    reads.read(publish=False)
    for read in reads.last._plan.reads if reads.last else ():
        assert read.saver
        read.saver.flush()
    reads.sandbox.grant("northpeak", products=PRODUCTS - 40)
    reads.sandbox.touch("northpeak")
    assert reads.read().height == PRODUCTS - 40


def test_a_catalog_that_is_granted_no_more_is_not_left_out_of_its_day(tmp_path: Path) -> None:
    with Sandbox(catalogs={"northpeak": PRODUCTS, "strada": 120}) as sandbox:
        reads = Reads(sandbox, tmp_path)
        search = ProductSearch(page_size=10)
        begin = datetime.now(timezone.utc)
        reads.read(search, publish=False)
        for read in reads.last._plan.reads if reads.last else ():
            assert read.saver
            read.saver.flush()
        window = (begin, datetime.now(timezone.utc))
        sandbox.revoke("strada")
        with pytest.raises(OctogenPastPartitionError):
            reads.read(search, window=window)
        assert "of a read of other catalogs than are granted now: they are not" in reads.notes[-1]
        sandbox.grant("strada", products=120)
        assert reads.read(search, window=window).height == PRODUCTS + 120


def test_a_day_whose_retry_read_a_new_catalog_too_is_whole(tmp_path: Path) -> None:
    with Sandbox(catalogs={"northpeak": PRODUCTS}) as sandbox:
        reads = Reads(sandbox, tmp_path)
        search = ProductSearch(page_size=2)
        begin = datetime.now(timezone.utc)
        reads.interrupted(search=search)
        sandbox.grant("strada", products=120)
        reads.read(search, publish=False)
        for read in reads.last._plan.reads if reads.last else ():
            assert read.saver
            read.saver.flush()
        window = (begin, datetime.now(timezone.utc))
        assert reads.read(search, window=window).height == PRODUCTS + 120


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


def test_a_cursor_that_was_forgotten_starts_the_read_over_and_says_so(
    reads: Reads, undisturbed: pl.DataFrame
) -> None:
    reads.interrupted()
    began = datetime.now(timezone.utc)
    reads.sandbox.inject(Fault("restart_cursor", page=SAVED + 1, times=1))
    frames: list[pl.DataFrame] = []
    asked = reads.pages_asked(lambda: frames.append(reads.read()))
    assert asked[-len(WHOLE) :] == WHOLE
    assert frames[0].drop("fetched_at").equals(undisturbed)
    assert frames[0]["fetched_at"][0] >= began
    assert reads.notes[0] == (
        "Catalog 'northpeak': the service no longer knows the cursor of the saved pages and "
        "answered page 1 again. They are not used."
    )
    assert not reads.folder.exists()


@pytest.mark.parametrize("damage", ["cut", "changed", "emptied"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_damaged_segment_ends_what_is_used(
    reads: Reads, undisturbed: pl.DataFrame, damage: str, which: int
) -> None:
    reads.interrupted()
    path = chain(reads)[which]
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(
        {"cut": content[:half], "changed": content[:half] + b"?" + content[half + 1 :]}.get(
            damage, b""
        )
    )
    frames: list[pl.DataFrame] = []
    asked = reads.pages_asked(lambda: frames.append(reads.read()))
    assert asked == (reads.rest(which * PAGES_IN_A_SEGMENT) if which else WHOLE)
    assert frames[0].drop("fetched_at").equals(undisturbed)
    assert f"{path} are damaged" in reads.notes[0]
    assert not reads.folder.exists()


def test_what_is_no_segment_is_no_trouble(reads: Reads, undisturbed: pl.DataFrame) -> None:
    reads.folder.mkdir(parents=True)
    for name in ("x.pages", "-.pages", "a-b.pages", "b-a.pages", "notes.txt"):
        (reads.folder / name).write_bytes(b"something else")
    assert reads.read().drop("fetched_at").equals(undisturbed)
    assert [path.name for path in reads.folder.iterdir()] == ["notes.txt"]


def test_another_search_does_not_use_what_was_saved(reads: Reads) -> None:
    reads.interrupted()
    other = SEARCH.model_copy(update={"price_min": 1.0})
    assert reads.pages_asked(lambda: reads.read(other))[0] == 1
    assert "5 files of saved pages in" in reads.notes[0]
    assert "of another search, service, version or run" in reads.notes[0]


@pytest.mark.parametrize("search", [SEARCH, ProductSearch(page_size=2)])
def test_a_catalog_that_was_indexed_again_is_read_anew(
    tmp_path: Path, search: ProductSearch
) -> None:
    with Sandbox(catalogs={"northpeak": PRODUCTS}) as sandbox:
        reads = Reads(sandbox, tmp_path)
        reads.interrupted(search=search)
        sandbox.touch("northpeak")
        assert reads.pages_asked(lambda: reads.read(search)) == WHOLE
        assert "of a catalog that was indexed again since" in reads.notes[0]


@pytest.mark.parametrize("content", [b"PAR1", zstd.compress(b"\x80")], ids=["parquet", "empty"])
def test_pages_of_another_format_are_not_used(
    reads: Reads, undisturbed: pl.DataFrame, content: bytes
) -> None:
    reads.interrupted(PAGES_IN_A_SEGMENT + 1)
    (segment,) = chain(reads)
    path = segment.rename(reads.folder / segment_name(segment.name.partition("-")[0], content))
    path.write_bytes(content)
    assert reads.read().drop("fetched_at").equals(undisturbed)
    assert f"The saved pages {path} are whole, and of a format that" in reads.notes[0]
    assert not reads.folder.exists()


def test_a_read_that_began_too_long_ago_is_not_continued(reads: Reads) -> None:
    reads.interrupted()
    asked = reads.pages_asked(lambda: reads.read(resume_within=timedelta(0)))
    assert asked[-len(WHOLE) :] == WHOLE
    assert "too long ago. They are not used." in reads.notes[0]


def test_a_read_that_began_in_the_future_is_not_continued(reads: Reads) -> None:
    reads.interrupted()
    store = PageStore(UPath(reads.folder))
    root = chain(reads)[0].name.partition("-")[0]
    (saved,) = store.chains(root, "Catalog 'northpeak'", store.segments(), reads.notes.append)
    for path in reads.segments():
        path.unlink()
    saver = PageSaver(
        store, root, None, datetime.now(timezone.utc) + timedelta(hours=1), saved.catalogs
    )
    saver.add(saved.first_page)
    saver.flush()

    assert reads.pages_asked(reads.read)[-len(WHOLE) :] == WHOLE
    assert "a read that begins later" in reads.notes[0]
    assert "a clock jumped. They are not used." in reads.notes[0]


def test_two_runs_at_once_do_not_mix(reads: Reads, undisturbed: pl.DataFrame) -> None:
    reads.interrupted()
    connection = Connection(
        api_key=ApiKey(reads.sandbox.api_key),
        base_url=reads.sandbox.base_url,
        retry=RetryPolicy(attempts=1),
    )
    scan = ProductScan(SEARCH, connection)
    scan.save_pages(PageStore(UPath(reads.folder)), reads.notes.append)
    batches = scan._read(None, None, None, None)
    first = next(batches)
    other = Reads(reads.sandbox, reads.folder).read()  # removes what the first one continues from
    whole = pl.concat([first, *batches])
    assert re.search(
        r"what was saved after page (12|24|36|48) is not there any more", reads.notes[-1]
    )  # which one: as far as the first one has read ahead
    assert reads.notes[-1].endswith("The service is asked for the rest.")
    scan.published()

    for frame in (whole, other):
        assert frame.drop("fetched_at").equals(undisturbed)
    assert not reads.segments()


def test_the_other_generation_starts_the_read_over(tmp_path: Path) -> None:
    with Sandbox(catalogs={"northpeak": PRODUCTS}) as sandbox:
        reads = Reads(sandbox, tmp_path)
        reads.interrupted()
        (first, *_) = chain(reads)
        store = PageStore(UPath(tmp_path))
        root = first.name.partition("-")[0]
        (saved,) = store.chains(root, "", store.segments(), reads.notes.append)
        pages = list(saved)
        for path in reads.segments():
            path.unlink()
        saver = PageSaver(store, root, None, saved.started_at, saved.catalogs)
        saver.generation = "catalogs"
        for page in pages:
            saver.add(page)
        assert reads.pages_asked(reads.read)[-len(WHOLE) :] == WHOLE
        assert "speaks another generation of its contract than the saved pages" in reads.notes[0]


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(reads: Reads) -> None:
    reads.folder.parent.mkdir(exist_ok=True)
    reads.folder.write_text("a file")
    with pytest.raises(OctogenSnapshotError, match=r"Pages cannot be saved to .*Make it writable"):
        reads.read()


def test_landed_pages_rebuild_a_snapshot_without_the_service(
    reads: Reads, undisturbed: pl.DataFrame
) -> None:
    captured = reads.read(keep=True)
    window = (captured["fetched_at"][0], datetime.now(timezone.utc))
    reads.sandbox.touch("northpeak")
    before = len(reads.sandbox.requests)

    rebuilt = reads.read(keep=True, window=window)
    assert rebuilt.equals(captured)
    assert rebuilt.drop("fetched_at").equals(undisturbed)
    assert len(reads.sandbox.requests) == before
    assert reads.last
    assert reads.last.statistics.rebuilt
    assert reads.notes[0].startswith("Rebuilt from the pages that were landed at ")
    assert reads.read(window=window).equals(captured)  # also when pages are not kept any more


def test_landed_pages_of_a_capped_search_rebuild_the_same(reads: Reads) -> None:
    search = SEARCH.model_copy(update={"max_products": 7, "catalogs": ["strada", "northpeak"]})
    captured = reads.read(search, keep=True)
    window = (captured["fetched_at"][0], datetime.now(timezone.utc))
    rebuilt = reads.read(ProductSearch(), window=window)
    assert rebuilt.equals(captured)
    assert reads.last
    assert reads.last.search == search
    assert reads.last.statistics.truncated


def test_the_next_landed_pages_replace_those_before(reads: Reads) -> None:
    reads.read(keep=True)
    first = reads.segments()
    assert reads.pages_asked(lambda: reads.read(keep=True))[-len(WHOLE) :] == WHOLE
    second = reads.segments()
    assert len(first) == len(second) == 5
    assert not set(first) & set(second)
    reads.read()  # without keeping: what is landed stays
    assert reads.segments() == second


def test_a_landed_page_file_cut_in_half_is_an_error_and_nothing_is_rebuilt(reads: Reads) -> None:
    captured = reads.read(keep=True)
    window = (captured["fetched_at"][0], datetime.now(timezone.utc))
    path = chain(reads)[1]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(OctogenSnapshotError, match=r"are damaged: .* bytes that are not what was"):
        reads.read(window=window)
    path.unlink()
    with pytest.raises(OctogenSnapshotError, match="are gone"):
        reads.read(window=window)


def test_a_missing_last_segment_is_noticed(reads: Reads) -> None:
    captured = reads.read(keep=True)
    window = (captured["fetched_at"][0], datetime.now(timezone.utc))
    store = PageStore(UPath(reads.folder), keep=True)
    landing = store.landing()
    assert landing
    landing.walks[0].segments.pop()
    store.land(landing)
    with pytest.raises(OctogenSnapshotError, match="1 of 1 walks ended before their last page"):
        reads.read(window=window)


@pytest.mark.parametrize(
    ("manifest", "text"),
    [
        (b"{", "is damaged"),
        (
            b'{"search": {}, "walks": [], "started_at": "2026-11-25T00:00:00Z", "version": 9}',
            "of 9",
        ),
    ],
)
def test_a_manifest_that_cannot_be_read_is_an_error(
    reads: Reads, manifest: bytes, text: str
) -> None:
    captured = reads.read(keep=True)
    window = (captured["fetched_at"][0], datetime.now(timezone.utc))
    (reads.folder / "landed.json").write_bytes(manifest)
    with pytest.raises(OctogenSnapshotError, match=text.replace("of 9", "version 9")):
        reads.read(window=window)
    assert reads.read().height == PRODUCTS


def test_a_past_time_that_was_not_landed_is_refused(reads: Reads) -> None:
    now = datetime.now(timezone.utc)
    window = (now - timedelta(days=2), now - timedelta(days=1))
    before = len(reads.sandbox.requests)
    with pytest.raises(OctogenPastPartitionError) as caught:
        reads.read(window=window)
    assert str(caught.value) == (
        f"The partition from {window[0]:%Y-%m-%d %H:%M} to {window[1]:%Y-%m-%d %H:%M} UTC is over, "
        "and the service knows only the present: what it says now must not be stored under "
        "another time. No pages of that time are archived, so it cannot be rebuilt. Materialize "
        "the partition of now; with ParquetSnapshotIOManager(keep_pages=True) it can be "
        "rebuilt later."
    )
    assert len(reads.sandbox.requests) == before

    reads.read(keep=True)  # of now, so it is no help
    with pytest.raises(OctogenPastPartitionError):
        reads.read(window=window)


def test_a_time_to_come_is_refused(reads: Reads) -> None:
    now = datetime.now(timezone.utc)
    with pytest.raises(
        OctogenPastPartitionError, match=r"has not begun.*when its time has come\.$"
    ):
        reads.read(window=(now + timedelta(days=1), now + timedelta(days=2)))


def test_the_present_is_read_from_the_service_even_if_it_is_landed(reads: Reads) -> None:
    now = datetime.now(timezone.utc)
    window = (now - timedelta(hours=1), now + timedelta(hours=1))
    reads.read(window=window, keep=True)
    assert reads.pages_asked(lambda: reads.read(window=window, keep=True))[-len(WHOLE) :] == WHOLE


def test_a_read_that_began_in_its_time_may_be_continued_after_it(
    reads: Reads, undisturbed: pl.DataFrame
) -> None:
    begin = datetime.now(timezone.utc)
    reads.interrupted()
    window = (begin, datetime.now(timezone.utc))
    if reads.generation == "current":  # nobody says whether the rest is of the same state
        with pytest.raises(OctogenPastPartitionError):
            reads.read(window=window)
        return
    frames: list[pl.DataFrame] = []
    assert reads.pages_asked(lambda: frames.append(reads.read(window=window))) == reads.rest()
    assert frames[0].drop("fetched_at").equals(undisturbed)

    reads.interrupted()  # began after the window
    with pytest.raises(OctogenPastPartitionError):
        reads.read(window=window)


def test_a_landing_whose_files_another_run_removed_is_not_written(reads: Reads) -> None:
    store = PageStore(UPath(reads.folder), keep=True)
    reads.read(publish=False, keep=True)
    for path in reads.segments():
        path.unlink()
    assert reads.last
    with pytest.raises(OctogenSnapshotError, match="were removed while they were in use"):
        reads.last.land()
    assert store.landing() is None


def test_a_manifest_that_was_changed_is_an_error_and_loses_nothing(reads: Reads) -> None:
    captured = reads.read(keep=True)
    window = (captured["fetched_at"][0], datetime.now(timezone.utc))
    manifest = reads.folder / "landed.json"
    whole = manifest.read_text()
    manifest.write_text(whole.replace(reads.segments()[0].name, reads.segments()[1].name))
    with pytest.raises(OctogenSnapshotError, match="is not what was written"):
        reads.read(window=window)
    before = reads.segments()
    assert (
        reads.pages_asked(reads.read)[-len(WHOLE) :] == WHOLE
    )  # it takes nothing for a dead run's
    assert reads.segments() == before
    manifest.write_text(whole)
    assert reads.read(window=window).equals(captured)


@pytest.mark.parametrize("status", [400, 404, 410, 422])
def test_a_cursor_that_is_refused_starts_the_read_over(
    reads: Reads, undisturbed: pl.DataFrame, status: int
) -> None:
    reads.interrupted()
    reads.sandbox.inject(Fault("status", status, page=SAVED + 1, times=1))
    assert reads.read().drop("fetched_at").equals(undisturbed)
    assert f"refuses the cursor of the saved pages ({status}). They are not used." in reads.notes[0]


@pytest.mark.parametrize("changed", [1, SAVED])
def test_a_catalog_that_changed_unnoticed_is_read_anew(tmp_path: Path, changed: int) -> None:
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


def test_a_shorter_newer_chain_is_used_when_the_longer_is_not(
    reads: Reads, undisturbed: pl.DataFrame
) -> None:
    reads.interrupted()
    for path in chain(reads)[1:]:
        path.write_bytes(b"")
    reads.interrupted(30)  # from the first segment on: a branch of its own
    assert reads.pages_asked(reads.read) == reads.rest(29)
    assert not reads.folder.exists()


def test_pages_that_a_read_failed_for_are_not_used_again(reads: Reads) -> None:
    reads.sandbox.inject(Fault("loop_cursor", page=30, times=1))
    with pytest.raises(OctogenPagingError):
        reads.read()
    assert reads.segments() == []
    assert reads.pages_asked(reads.read)[-len(WHOLE) :] == WHOLE


def test_no_catalog_is_begun_after_its_time(tmp_path: Path) -> None:
    with Sandbox(catalogs={"northpeak": PRODUCTS, "strada": 120}) as sandbox:
        reads = Reads(sandbox, tmp_path)
        search = SEARCH.model_copy(update={"catalogs": ["northpeak", "strada"]})
        begin = datetime.now(timezone.utc)
        reads.interrupted()  # of northpeak alone
        window = (begin, datetime.now(timezone.utc))
        with pytest.raises(OctogenPastPartitionError):
            reads.read(search, window=window)


def test_a_read_that_was_whole_is_published_also_long_after_its_time(reads: Reads) -> None:
    begin = datetime.now(timezone.utc)
    reads.read(publish=False, keep=True)
    for read in reads.last._plan.reads if reads.last else ():
        assert read.saver
        read.saver.flush()
    window = (begin, datetime.now(timezone.utc))
    asked = reads.pages_asked(lambda: reads.read(window=window, resume_within=timedelta(0)))
    assert asked == []


@pytest.mark.parametrize("what", ["base_url", "SCHEMA_VERSION"])
def test_what_pages_depend_on_is_in_the_root(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    request = SEARCH.request("northpeak")
    before = walk_root(request, "https://api.example/v1", None)
    assert before == walk_root(request, "https://api.example/v1", None)
    other = "https://other.example/v1" if what == "base_url" else "https://api.example/v1"
    if what == "SCHEMA_VERSION":
        monkeypatch.setattr(segments, "SCHEMA_VERSION", 99)
    assert walk_root(request, other, None) != before


def test_pages_after_a_segment_that_could_not_be_written_are_not_joined_to_those_before_it(
    reads: Reads, undisturbed: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = PageStore.write, []

    def fails_once(store: PageStore, content: bytes, previous: str) -> str:
        written.append(previous)
        if len(written) == 2:
            raise OctogenSnapshotError("The disk is full.")
        return write(store, content, previous)

    monkeypatch.setattr(PageStore, "write", fails_once)
    with pytest.raises(OctogenSnapshotError, match="The disk is full"):
        reads.read()
    frames: list[pl.DataFrame] = []
    asked = reads.pages_asked(lambda: frames.append(reads.read()))
    assert asked == reads.rest(PAGES_IN_A_SEGMENT)
    assert frames[0].drop("fetched_at").equals(undisturbed)


def test_pages_of_another_read_stay_as_long_as_it_may_be_continued(reads: Reads) -> None:
    reads.interrupted()
    saved = reads.segments()
    other = SEARCH.model_copy(update={"price_min": 1.0})
    reads.read(other)
    assert reads.segments() == saved
    saved[0].write_bytes(b"damaged")
    reads.read(other)
    assert reads.segments() == saved[1:]
    reads.read(other, resume_within=timedelta(0))
    assert not reads.folder.exists()


def test_page_1_is_known_by_its_products_or_by_its_cursor(reads: Reads) -> None:
    reads.interrupted()
    root = chain(reads)[0].name.partition("-")[0]
    store = PageStore(UPath(reads.folder))
    (saved,) = store.chains(root, "", store.segments(), reads.notes.append)
    first, last = saved.first_page, saved.last_page
    assert not saved.is_stale(last)
    for page in (
        msgspec.structs.replace(last, uuids=first.uuids),
        msgspec.structs.replace(last, next_cursor=first.next_cursor),
    ):
        assert saved.is_stale(page)


def test_pages_that_were_landed_before_are_never_taken_for_those_of_a_read_that_died(
    reads: Reads,
) -> None:
    reads.read(keep=True)
    reads.read(keep=True, publish=False)
    assert reads.last
    reads.last.land()  # and the run dies before it publishes
    assert len(reads.segments()) == 10
    assert reads.pages_asked(lambda: reads.read(keep=True)) == WHOLE
    assert len(reads.segments()) == 5


def test_of_many_catalogs_those_that_ended_are_not_asked_for_again(tmp_path: Path) -> None:
    shops = {f"shop-{number}": 20 for number in range(5)} | {"zoo": 30}
    with Sandbox(catalogs=shops) as sandbox:
        reads = Reads(sandbox, tmp_path / ".all.pages")
        reads.concurrency = 1
        search = ProductSearch(page_size=10)
        whole = reads.read(search).drop("fetched_at")
        reads.interrupted(3, search)
        frames: list[pl.DataFrame] = []
        read = partial(reads.read, search, publish=False)
        assert reads.pages_asked(lambda: frames.append(read())) == [3]
        # Now it is whole: what is saved is all that is needed.
        assert reads.pages_asked(lambda: frames.append(reads.read(search))) == []
        for frame in frames:
            assert frame.drop("fetched_at").equals(whole)


def test_a_read_that_outlives_the_loss_of_saved_pages_can_still_be_landed(reads: Reads) -> None:
    reads.interrupted(30)
    captured: list[pl.DataFrame] = []
    lost = chain(reads)[-1]
    damaged = PageStore.read

    def read(store: PageStore, name: str, previous: str) -> Segment:
        if name == lost.name and reads.notes and "continues after" in reads.notes[-1]:
            lost.write_bytes(b"damaged after the plan was made")
        return damaged(store, name, previous)

    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(PageStore, "read", read)
        captured.append(reads.read(keep=True))
    assert "what was saved after page 24 is not there any more" in reads.notes[-1]
    window = (captured[0]["fetched_at"][0], datetime.now(timezone.utc))
    assert reads.read(window=window).equals(captured[0])


def test_runs_that_land_at_once_leave_a_whole_list(reads: Reads) -> None:
    reads.read(keep=True)
    store = PageStore(UPath(reads.folder), keep=True)
    landing = store.landing()
    assert landing
    with ThreadPoolExecutor(4) as pool:
        for landed in [pool.submit(store.land, landing) for _ in range(200)]:
            assert store.landing()
            landed.result()


def test_landed_pages_are_on_the_disk_before_they_are_named(
    reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, synced = os.fsync, []

    def noted(handle: int) -> None:
        synced.append((os.fstat(handle).st_ino, manifest.exists()))
        fsync(handle)

    manifest = reads.folder / "landed.json"
    monkeypatch.setattr(os, "fsync", noted)
    reads.read(keep=True)
    segments = {(path.stat().st_ino, False) for path in reads.segments()}
    assert set(synced[:-2]) == segments
    assert synced[-2:] == [(manifest.stat().st_ino, False), (reads.folder.stat().st_ino, True)]
