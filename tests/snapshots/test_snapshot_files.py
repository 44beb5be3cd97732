from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from upath import UPath

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.snapshots.snapshot_files import SnapshotFile, write_parquet

ROWS_IN_A_BATCH = 20_000

# Writes three row groups of a snapshot, prints a line, and waits until its input ends.
INTERRUPTED = """
import sys
from upath import UPath
import polars as pl
from polars.io.plugins import register_io_source
from octogen_dagster.snapshots.snapshot_files import SnapshotFile, write_parquet

def never_stopped() -> None:
    raise AssertionError("nothing interrupts this thread")


def batches(with_columns, predicate, n_rows, batch_size):
    for _ in range(4):
        yield pl.DataFrame({{"n": range({rows})}})
    print("half", flush=True)
    sys.stdin.read()

file = SnapshotFile(UPath({path!r}))
with file.unfinished() as unfinished:
    frame = register_io_source(batches, schema={{"n": pl.Int64}})
    write_parquet(frame, unfinished, dict, never_stopped)
    file.publish(unfinished)
"""


def never_stopped() -> None:
    raise AssertionError("nothing interrupts this thread")


def write(file: SnapshotFile, numbers: list[int]) -> int:
    with file.unfinished() as unfinished:
        rows = write_parquet(
            pl.LazyFrame({"n": numbers}), unfinished, lambda: {"k": "v"}, never_stopped
        )
        file.publish(unfinished)
    return rows


@pytest.fixture
def file(tmp_path: Path) -> SnapshotFile:
    return SnapshotFile(UPath(tmp_path / "deep" / "down" / "x.parquet"))


@pytest.fixture
def interrupted(file: SnapshotFile) -> Iterator[subprocess.Popen[str]]:
    """Yield a process that is in the middle of writing the same snapshot."""
    program = INTERRUPTED.format(rows=ROWS_IN_A_BATCH, path=file.uri)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "half\n"
        yield process
        process.kill()


def unfinished_files(file: SnapshotFile) -> list[Path]:
    return list(Path(file.uri).parent.glob(".*.unfinished"))


def test_a_snapshot_is_published_with_its_metadata(file: SnapshotFile) -> None:
    assert not file.exists()
    assert write(file, [1, 2, 3]) == 3
    assert file.exists()
    assert file.scan().collect()["n"].to_list() == [1, 2, 3]
    assert pl.read_parquet_metadata(file.uri)["k"] == "v"
    assert unfinished_files(file) == []


def test_a_frame_does_not_change_when_another_snapshot_is_published(file: SnapshotFile) -> None:
    write(file, [1, 2, 3])
    frame = file.scan()
    frame.collect_schema()
    write(file, list(range(50_000)))
    assert frame.collect()["n"].to_list() == [1, 2, 3]
    assert file.scan().collect().height == 50_000


def test_the_footer_carries_statistics(file: SnapshotFile) -> None:
    write(file, [5, 1, 9])
    column = pq.read_metadata(file.uri).row_group(0).column(0)
    assert (column.statistics.min, column.statistics.max) == (1, 9)
    assert column.compression == "ZSTD"


def test_the_next_writer_removes_the_file_of_a_killed_one(
    file: SnapshotFile, interrupted: subprocess.Popen[str]
) -> None:
    (left,) = unfinished_files(file)
    deadline = time.monotonic() + 30  # Polars writes in threads of its own
    while left.stat().st_size <= 10_000 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left.stat().st_size > 10_000

    interrupted.kill()
    interrupted.wait()
    assert not file.exists()
    assert unfinished_files(file) == [left]

    write(file, [7])
    assert file.scan().collect()["n"].to_list() == [7]
    assert unfinished_files(file) == []


def test_a_killed_writer_leaves_the_existing_snapshot_unchanged(file: SnapshotFile) -> None:
    write(file, [1, 2])
    before = Path(file.uri).read_bytes()
    program = INTERRUPTED.format(rows=ROWS_IN_A_BATCH, path=file.uri)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        process.stdout.readline()
        assert Path(file.uri).read_bytes() == before
        process.kill()
    assert Path(file.uri).read_bytes() == before


def test_the_file_of_a_writer_at_work_is_not_removed(
    file: SnapshotFile, interrupted: subprocess.Popen[str]
) -> None:
    write(file, [1])
    assert len(unfinished_files(file)) == 1

    assert interrupted.stdin
    interrupted.stdin.close()
    assert interrupted.wait(timeout=60) == 0
    assert file.scan().select(pl.len()).collect().item() == 4 * ROWS_IN_A_BATCH
    assert unfinished_files(file) == []


class Killed(BaseException):
    """Stands in for a signal that ends the process."""


def test_what_a_publisher_left_that_was_killed_while_it_kept_the_old_snapshot_is_removed(
    file: SnapshotFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(_source: str, _target: str) -> None:
        raise Killed

    write(file, [1])
    with file.unfinished() as unfinished, monkeypatch.context() as killing:
        write_parquet(pl.LazyFrame({"n": [2]}), unfinished, dict, never_stopped)
        killing.setattr(os, "replace", kill)
        with pytest.raises(Killed):
            file.publish(unfinished, keep_previous=True)
    assert len(unfinished_files(file)) == 1
    write(file, [3])
    assert unfinished_files(file) == []


def test_the_old_snapshot_is_kept_although_another_publisher_removes_its_new_name(
    file: SnapshotFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, removals = os.link, iter([os.unlink])

    def disturbed(source: str, target: str) -> None:
        link(source, target)
        next(removals, lambda _path: None)(target)

    write(file, [1])
    monkeypatch.setattr(os, "link", disturbed)
    with file.unfinished() as unfinished:
        write_parquet(pl.LazyFrame({"n": [2]}), unfinished, dict, never_stopped)
        file.publish(unfinished, keep_previous=True)
    assert file.previous.scan().collect()["n"].to_list() == [1]
    assert unfinished_files(file) == []


def test_a_leftover_of_another_user_is_left_alone(
    file: SnapshotFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file, [1])
    leftover = Path(file.uri).parent / ".x.parquet.0123.unfinished"
    leftover.touch()
    opened = os.open

    def refusing(path: Any, *arguments: Any, **options: Any) -> int:
        if Path(path) == leftover:  # as for everybody but root
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refusing)
    write(file, [2])
    assert file.scan().collect()["n"].to_list() == [2]
    assert leftover.exists()


def test_another_snapshot_s_leftovers_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / ".y.parquet.0123.unfinished"
    other.touch()
    write(SnapshotFile(UPath(tmp_path / "x.parquet")), [1])
    assert other.exists()


INTERRUPTED_READ = """
import sys
from upath import UPath
from octogen_dagster import OctogenResource, ProductSearch
from octogen_dagster.snapshots.snapshot_files import SnapshotFile, write_parquet

scan = OctogenResource().scan(ProductSearch(catalogs=["northpeak"], page_size=1))
file = SnapshotFile(UPath({path!r}))
with file.unfinished() as unfinished:
    print("reading", flush=True)
    write_parquet(scan.frame, unfinished, dict, scan.stop)
"""


def test_an_interrupt_ends_a_read(file: SnapshotFile, shops: Sandbox) -> None:
    shops.inject(Fault("latency", 0.2, path="/products/search"))
    environment = {**os.environ, **shops.environment}
    program = INTERRUPTED_READ.format(path=file.uri)
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "reading\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) != 0
    assert len(shops.requests) < 60  # of 231
    assert not file.exists()
    # Polars may open its file after the query has failed. The next writer removes that file, too.
    write(file, [7])
    assert unfinished_files(file) == []


def test_names_with_glob_characters_are_taken_literally(tmp_path: Path) -> None:
    other = tmp_path / ".xa.parquet.0123.unfinished"
    other.touch()
    file = SnapshotFile(UPath(tmp_path / "x[ab]*.parquet"))
    write(file, [1])
    assert file.scan().collect()["n"].to_list() == [1]
    assert other.exists()


def test_a_folder_that_cannot_be_written_to_is_an_error_that_says_what_to_do(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    file = SnapshotFile(UPath(tmp_path / "file" / "x.parquet"))
    with (
        pytest.raises(OctogenSnapshotError, match=r"^Snapshots cannot be written to .*base_dir"),
        file.unfinished(),
    ):
        pass


def test_a_failed_publication_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    file = SnapshotFile(UPath(tmp_path / "x.parquet"))
    with file.unfinished() as unfinished:
        (tmp_path / "x.parquet").mkdir()
        (tmp_path / "x.parquet" / "in the way").touch()
        with pytest.raises(OctogenSnapshotError, match=r"could not be published.*run it again"):
            file.publish(unfinished)
    assert unfinished_files(file) == []


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))


@pytest.mark.parametrize(
    ("kind", "make"), [("folder", Path.mkdir), ("FIFO", os.mkfifo), ("socket", make_socket)]
)
def test_anything_but_a_file_at_a_snapshot_s_place_is_an_error_at_once(
    tmp_path: Path, kind: str, make: Callable[[Path], None]
) -> None:
    file = SnapshotFile(UPath(tmp_path / "x.parquet"))
    make(tmp_path / "x.parquet")
    for use in (file.exists, file.scan, file.provenance, file.count_rows, lambda: write(file, [1])):
        with pytest.raises(
            OctogenSnapshotError,
            match=rf"^The snapshot /.*/x\.parquet cannot be .*: a {kind} is .*Move it away",
        ):
            use()
    assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]


def test_a_link_that_leads_nowhere_else_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    file = SnapshotFile(UPath(tmp_path / "x.parquet"))
    Path(file.uri).symlink_to(file.uri)
    for use in (file.exists, file.scan, lambda: write(file, [1])):
        with pytest.raises(OctogenSnapshotError, match=r"cannot be read: Too many .*Let this user"):
            use()


def test_a_file_that_this_user_may_not_read_is_an_error_that_says_what_to_do(
    file: SnapshotFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any, _mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    write(file, [1])
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(OctogenSnapshotError, match=r"be read: Permission denied\. Let this user"):
        file.scan()


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Let every file end at 20,000 bytes, with the error of a system that has no room for more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("base", "advice"), [("", "base_dir"), ("memory://full", "set TMPDIR to another folder")]
)
def test_a_full_disk_is_an_error_that_says_what_to_do_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str, advice: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    file = SnapshotFile(UPath(base or tmp_path) / "x.parquet")
    write(file, [1])
    message = rf"^Snapshots cannot be written to {tmp_path}: File too large.* published.*{advice}"
    with full_disk(), pytest.raises(OctogenSnapshotError, match=message):
        write(file, list(range(100_000)))
    assert file.scan().collect()["n"].to_list() == [1]
    assert [path.name for path in tmp_path.iterdir()] == ([] if base else ["x.parquet"])


def test_a_failing_frame_leaves_no_file(file: SnapshotFile) -> None:
    bad = pl.LazyFrame({"n": ["x"]}).select(pl.col("n").cast(pl.Int64))
    with pytest.raises(pl.exceptions.InvalidOperationError), file.unfinished() as unfinished:
        write_parquet(bad, unfinished, dict, never_stopped)
    assert unfinished_files(file) == []
    assert not file.exists()


def test_a_file_for_an_object_store_is_prepared_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    file = SnapshotFile(UPath("memory://bucket/x.parquet"))
    with file.unfinished() as first:
        assert first.parent.parent == tmp_path
    write(file, [1, 2])
    assert file.scan().collect()["n"].to_list() == [1, 2]
    assert file.uri == "memory://bucket/x.parquet"
    assert list(tmp_path.iterdir()) == []


def test_frames_that_fail_leave_no_file(tmp_path: Path) -> None:
    failing = pl.LazyFrame({"n": ["1", "x"]}).with_columns(pl.col("n").cast(pl.Int64))
    for number in range(100):  # Polars opens a path when it likes, often after the failure
        file = SnapshotFile(UPath(tmp_path / f"{number}.parquet"))
        with pytest.raises(pl.exceptions.InvalidOperationError), file.unfinished() as unfinished:
            write_parquet(failing, unfinished, dict, never_stopped)
    assert list(tmp_path.iterdir()) == []
