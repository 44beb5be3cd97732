from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from octogen_dagster.background import run_in_thread, submit, wait_interruptibly

POLL_SECONDS = 300


class Interrupted(Exception):
    pass


@pytest.fixture
def interrupting() -> Iterator[signal.Signals]:
    """A signal whose handler raises `Interrupted` in the main thread."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield signal.SIGUSR1
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_that_another_thread_receives_ends_the_wait(interrupting: signal.Signals) -> None:
    go, release = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(POLL_SECONDS)
        signal.pthread_kill(threading.get_ident(), interrupting)
        release.wait(POLL_SECONDS)

    def let_go_and_wait() -> None:
        go.set()
        wait_interruptibly(future)

    future = submit(work, "name")
    with pytest.raises(Interrupted):
        let_go_and_wait()
    was_done = future.done()
    release.set()
    assert not was_done


def test_an_interrupt_while_the_thread_is_started_is_one_of_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, begun, stopped = threading.Thread.start, threading.Event(), threading.Event()
    results = list[bool]()

    def start_slowly(thread: threading.Thread) -> None:
        start(thread)
        begun.wait(POLL_SECONDS)
        raise Interrupted

    def work() -> None:
        begun.set()
        results.append(stopped.wait(POLL_SECONDS))

    monkeypatch.setattr(threading.Thread, "start", start_slowly)
    with pytest.raises(Interrupted):
        run_in_thread(work, "octogen-test", stopped)
    assert results == [True]


def test_an_interrupt_is_raised_although_the_work_never_stops(
    interrupting: signal.Signals,
) -> None:
    stop, release, main = threading.Event(), threading.Event(), threading.get_ident()
    ended = threading.Event()

    def hang() -> None:
        signal.pthread_kill(main, interrupting)
        release.wait(POLL_SECONDS)
        ended.set()

    with pytest.raises(Interrupted):
        run_in_thread(hang, "octogen-test", stop, _stop_seconds=0)
    was_ended = ended.is_set()
    release.set()
    assert stop.is_set()
    assert not was_ended


def test_a_thread_that_cannot_be_started_is_an_error_and_no_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        run_in_thread(lambda: None, "octogen-test", threading.Event())
