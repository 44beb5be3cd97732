"""A read says how far it is, what it cost and what it will cost, while its pages come."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import select
import struct
import sys
import termios
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import ProductSearch, build_products_asset
from tests.api.servers import POLL_SECONDS
from tests.promises.paged_service import PagedService
from tests.results import octogen_at, scan, stored


@pytest.fixture
def service() -> Iterator[PagedService]:
    with PagedService({"acme": 1_000}).running() as service:
        yield service


class Terminal:
    """A terminal that takes the place of stderr while the context is open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.shown = ""

    def __enter__(self) -> Terminal:
        self._reader, writer = pty.openpty()
        fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("4H", 50, 200, 0, 0))
        self._stderr = open(writer, "w")
        self._monkeypatch.setattr(sys, "stderr", self._stderr)
        return self

    def __exit__(self, *_: object) -> None:
        self._monkeypatch.undo()
        self._stderr.close()
        os.close(self._reader)

    def wait_for(self, text: str) -> None:
        """Read what is shown until a text is, for half a minute at most."""
        while text not in self.shown:
            ready, _, _ = select.select([self._reader], [], [], POLL_SECONDS)
            assert ready, f"{text!r} is not shown: {self.shown[-1_000:]!r}"
            self.shown += os.read(self._reader, 65_536).decode()


@contextmanager
def reading(service: PagedService, catalogs: list[str]) -> Iterator[Future[pl.DataFrame]]:
    """Read catalogs in a thread, and wait for its end."""
    frame = scan(service, ProductSearch(catalogs=catalogs), progress=True)
    with ThreadPoolExecutor(1) as threads:
        yield threads.submit(frame.collect)
        service.release()


@pytest.mark.parametrize(
    ("last_page", "shown"),
    [
        (1, "100 of 1,000 products in 1 page, $0.014"),
        (3, "300 of 1,000 products in 3 pages, $0.042"),
    ],
)
def test_a_terminal_shows_the_pages_as_they_are_received_and_their_cost(
    service: PagedService, monkeypatch: pytest.MonkeyPatch, last_page: int, shown: str
) -> None:
    service.last_page = last_page
    with Terminal(monkeypatch) as terminal, reading(service, ["acme"]) as result:
        terminal.wait_for(f"Catalog 'acme': {shown} of about $0.14")
        service.release()
        terminal.wait_for("Catalog 'acme': 1,000 of 1,000 products in 10 pages, $0.14, ")
        assert result.result(POLL_SECONDS).height == 1_000


def test_nothing_is_shown_without_a_terminal(
    service: PagedService, capfd: pytest.CaptureFixture[str]
) -> None:
    with reading(service, ["acme"]) as result:
        assert result.result(POLL_SECONDS).height == 1_000
    assert capfd.readouterr() == ("", "")


def materialize(
    service: PagedService, folder: Path, handler: logging.Handler
) -> dg.ExecuteInProcessResult:
    @dg.logger
    def console(_: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("console", logging.INFO)
        logger.addHandler(handler)
        return logger

    defs = dg.Definitions(
        assets=[build_products_asset("acme", ProductSearch(catalogs=["acme"]))],
        resources=stored(folder, octogen_at(service)),
        loggers={"console": console},
    )
    job = defs.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(run_config={"loggers": {"console": {}}})


class Lines(logging.Handler):
    """Keeps what is logged, and releases the pages when a line has a text."""

    def __init__(self, service: PagedService, text: str = "") -> None:
        super().__init__()
        self.lines: list[str] = []
        self._service = service
        self._text = text

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        self.lines.append(message)
        if self._text and self._text in message:
            self._service.release()


@pytest.mark.long
@pytest.mark.slow  # a run says it every ten seconds
def test_the_log_of_a_run_counts_the_pages_that_were_received(
    service: PagedService, tmp_path: Path
) -> None:
    service.last_page = 3
    line = "Catalog 'acme': 300 of 1,000 products in 3 pages, $0.042 of about $0.14"
    lines = Lines(service, line)
    assert materialize(service, tmp_path, lines).success
    assert any(line in each for each in lines.lines)
    assert pl.read_parquet(tmp_path / "acme.parquet").height == 1_000
