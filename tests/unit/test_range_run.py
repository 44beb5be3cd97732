"""Partitions in threads: the next one starts as soon as it can, in whatever order they end."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from octogen_dagster.snapshots.range_run import each_at_once

BOUND = 60


def test_next_partition_starts_while_one_that_overtook_another_is_handled() -> None:
    slow_may_end, next_started = threading.Event(), threading.Event()

    def work(partition: str, note_read: Callable[[], None]) -> None:
        note_read()
        if partition == "slow":
            assert slow_may_end.wait(BOUND)
        elif partition == "next":
            next_started.set()

    waiting, stop = deque(["slow", "fast", "next"]), threading.Event()
    order = []
    for partition, future in each_at_once(work, waiting, at_once=1, stop=stop):
        future.result()
        order.append(partition)
        if partition == "fast":
            assert next_started.wait(BOUND)
            slow_may_end.set()
    assert order[0] == "fast"
    assert sorted(order) == ["fast", "next", "slow"]
