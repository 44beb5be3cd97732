"""What the service refuses is learned by one request for all clients."""

from __future__ import annotations

import asyncio
import pickle
import threading

import pytest

from octogen_dagster.api.refusals import Refusals


def test_all_others_wait_for_the_first_one_in_whatever_thread_it_runs() -> None:
    refusals = Refusals()
    first_began, may_end = threading.Event(), threading.Event()
    known: list[frozenset[str]] = []

    async def first() -> None:
        async with refusals.learned_once():
            first_began.set()
            assert may_end.wait(30)
            refusals.fields = frozenset({"catalog"})

    async def other() -> None:
        async with refusals.learned_once():
            known.append(refusals.fields)

    async def two_others() -> None:
        one, two = asyncio.create_task(other()), asyncio.create_task(other())
        await asyncio.sleep(0)
        one.cancel()  # a caller that gives up takes nothing from the others
        may_end.set()
        await two

    learner = threading.Thread(target=asyncio.run, args=(first(),))
    learner.start()
    assert first_began.wait(30)
    asyncio.run(two_others())
    learner.join(30)
    asyncio.run(other())
    assert known == [{"catalog"}] * 2


async def test_a_first_one_that_fails_holds_nobody() -> None:
    refusals = Refusals()
    with pytest.raises(ValueError, match="broken"):
        async with refusals.learned_once():
            raise ValueError("broken")
    async with refusals.learned_once():
        assert refusals.fields == frozenset()


def test_a_pickled_copy_begins_anew() -> None:
    refusals = Refusals()
    refusals.fields = frozenset({"catalog"})
    assert pickle.loads(pickle.dumps(refusals)).fields == frozenset()
