from __future__ import annotations

import threading
from collections.abc import Generator
from typing import Any

import pytest

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.service import Service
from octogen_dagster.errors import OctogenBudgetError
from octogen_dagster.reading.workers import Workers

SERVICE = Service(ApiKey("octo_live_test"), "http://127.0.0.1:1/v1")


def workers(jobs: Any, work: Any, threads: int = 3, **settings: Any) -> Workers[int, int]:
    options = {"ahead": 2, "check": lambda: None, "name": "test-worker", **settings}
    return Workers(SERVICE, jobs, work, threads=threads, **options)


def thrice(_client: BlockingClient, job: int) -> Generator[int, None, None]:
    for number in range(3):
        yield 10 * job + number


def test_each_job_is_done_once_and_in_its_order() -> None:
    with workers(range(20), thrice) as running:
        results = [result for result in running if result is not None]
    assert sorted(results) == sorted(10 * job + number for job in range(20) for number in range(3))
    for job in range(20):
        assert [each for each in results if each // 10 == job] == [*thrice(None, job)]  # type: ignore[arg-type]


def test_no_more_results_wait_than_allowed() -> None:
    made = threading.Semaphore(0)
    count = 0

    def many(_client: BlockingClient, _job: int) -> Generator[int, None, None]:
        nonlocal count
        for number in range(20):
            count += 1
            made.release()
            yield number

    with workers([0], many, threads=1) as running:
        results = (each for each in running if each is not None)
        for taken in range(20):
            if taken + 3 <= 20:  # two wait, and one is held by the thread
                while count < taken + 3:
                    assert made.acquire(timeout=30)
            assert count <= taken + 3
            assert next(results) == taken
        assert [*results] == []


def test_the_first_error_reaches_the_consumer_and_ends_all_threads() -> None:
    begun, ended = threading.Barrier(3), threading.Semaphore(0)

    def fail(client: BlockingClient, job: int) -> Generator[int, None, None]:
        begun.wait(30)
        try:
            if job == 0:
                raise LookupError("broken")
            client.stop.wait(30)
            client.check()
            yield job
        finally:
            ended.release()

    with pytest.raises(LookupError, match="broken"), workers(range(9), fail) as running:
        list(running)
    for _ in range(3):
        assert ended.acquire(timeout=30)
    assert not ended.acquire(blocking=False), "no further job was begun"


def test_when_the_money_is_spent_what_is_under_way_is_waited_for() -> None:
    paid: set[int] = set()
    begun, spent, is_waited_for = threading.Barrier(3), threading.Event(), threading.Event()

    def work(_client: BlockingClient, job: int) -> Generator[int, None, None]:
        if job < 3:
            begun.wait(30)
        if job == 0:
            spent.set()
            raise OctogenBudgetError("spent")
        assert is_waited_for.wait(30)
        paid.add(job)
        yield job

    def check() -> None:
        if spent.is_set():
            is_waited_for.set()

    with pytest.raises(OctogenBudgetError), workers(range(9), work, check=check) as running:
        list(running)
    assert paid >= {1, 2}
